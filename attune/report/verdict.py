"""What an evaluation came to, in sentences written from its figures."""

from attune.evaluation.comparison import FEWEST, Row, comparison
from attune.kinds import Kind
from attune.metrics import AT_R, KS
from attune.schemas import EvaluationResult

WORDS = {"better": "Better", "worse": "Worse", "": "No clear difference"}


def verdict(result: EvaluationResult, trained: bool = True) -> tuple[str, list[str]]:
    """A headline such as `Better in both directions`, and a sentence with the figures for each direction.

    It goes by recall@5, and on fewer than 50 pictures, where that is easily had, by recall@1; where captions have scores, by
    Spearman's correlation with them; of single items by MAP@R, which chooses their weights. Better and worse are said only
    where the whole 95 % interval is on one side of zero and the p-value agrees, if there is one, and on `FEWEST` pictures at
    least. The headline is empty if nothing was compared.

    Args:
        result: the figures.
        trained: whether they are of one model before and after training, and not of a baseline and another model.
    """
    k = KS[1] if result.items >= 50 else KS[0]
    rows = {row.metric: row for row in comparison(result).rows}
    directions = result.kind.directions
    figure = AT_R if result.kind.is_single else f"recall@{k}"
    names = ["spearman"] if "spearman" in rows else [f"{direction}_{figure}" for direction in directions]
    chosen = [rows[name] for name in names]
    too_few = f"too few {result.kind.items} to judge" if result.items < FEWEST else ""
    return _headline(chosen, too_few, result.kind), [_sentence(row, trained, too_few) for row in chosen]


def _headline(rows: list[Row], too_few: str, kind: Kind) -> str:
    if any(row.before is None or row.after is None for row in rows):
        return ""
    if too_few:
        return too_few.capitalize()
    if len(rows) == 1:
        return WORDS[rows[0].verdict]
    first, second = (WORDS[row.verdict] for row in rows)
    if first == second:
        return f"{first} in both directions"
    return f"{first} from {kind.words[0]}, {second[0].lower()}{second[1:]} from {kind.words[1]}"


def _sentence(row: Row, trained: bool, too_few: str) -> str:
    name = row.label[0].upper() + row.label[1:]
    if row.after is None:
        return f"{name} was not measured."
    if row.before is None:
        return f"{name} is {row.after:.3f}{f' (95 % interval {row.interval})' if row.interval else ''}."
    word = "" if too_few else row.verdict
    moved = {"better": "rose", "worse": "fell", "": "went"}[word]
    text = f"{name} {moved} from {row.before:.3f} to {row.after:.3f}"
    if not trained:
        text = f"{name} is {row.after:.3f}, and {row.before:.3f} with the baseline"
    if row.low is None or row.high is None:
        return f"{text} ({row.after - row.before:+.3f}); there is no interval to judge that by."
    text += f" ({row.after - row.before:+.3f}, 95 % interval {row.low:+.3f} to {row.high:+.3f})"
    return f"{text}." if word else f"{text}: {too_few or 'no clear difference'}."
