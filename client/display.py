"""Tables for the terminal."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from attune.comparison import Section
    from attune.schemas import FinetuningRun, SearchMatch


def metrics_table(run: "FinetuningRun") -> Table:
    """Before, after and difference of every metric, in both directions, with what they were measured on.

    A run that only evaluated has the columns baseline and model, or the model alone.
    """
    from attune.comparison import comparison

    result = run.evaluation
    trains = run.settings.get("train_data")
    notes = (
        ["difference: after minus before, with its 95 % interval (paired bootstrap over pictures)"] if result.before else []
    )
    table = _section_table(comparison(result), ("before", "after") if trains else ("baseline", "model"), bool(result.before))
    table.title = Text(f"{run.name}: {result.images} held-out pictures, {result.captions} captions")
    table.caption = Text("\n".join([*notes, *result.warnings]))
    return table


def compared_table(one: "FinetuningRun", other: "FinetuningRun") -> Table:
    """Two evaluated runs side by side, each after its training.

    Raises:
        EvaluationError: if they were not measured alike.
    """
    from attune.comparison import compare

    table = _section_table(compare(one.evaluation, other.evaluation), (one.name, other.name))
    table.title = Text(f"{one.evaluation.images} held-out pictures, {one.evaluation.captions} captions")
    return table


def _section_table(section: "Section", headings: tuple[str, str], compares: bool = True) -> Table:
    """Both columns and their difference, or the second column alone."""
    table = Table("metric")
    for heading in (*headings, "difference") if compares else headings[1:]:
        table.add_column(Text(heading), justify="right")
    for number, row in enumerate(section.rows, start=1):
        style = {"better": "green", "worse": "red"}.get(row.verdict, "")
        cells = (_figure(row.before), _figure(row.after), Text(row.difference, style))
        table.add_row(row.label, *(cells if compares else cells[1:2]), end_section=2 * number == len(section.rows))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def examples_table(examples: list[dict[str, Any]]) -> Table:
    """Queries with the rank of the right picture and the captions of the first hits.

    Before and after, or once where there is no before.
    """
    whens = [when for when in ("before", "after") if any(f"rank_{when}" in example for example in examples)]
    table = Table(caption="held-out queries; the right picture in green", show_lines=True)
    table.add_column("query", ratio=3)
    table.add_column("rank", no_wrap=True)
    for when in whens:
        table.add_column(f"first hits {when}" if len(whens) > 1 else "first hits", ratio=4)
    for example in examples:
        table.add_row(
            Text(example["query"]),
            " -> ".join(str(example[f"rank_{when}"]) for when in whens),
            *(_hits(example[f"hits_{when}"], example["image"]) for when in whens),
        )
    return table


def _hits(hits: list[dict[str, Any]], right: int) -> Text:
    lines = (Text(hit["caption"], "bold green" if hit["image"] == right else "") for hit in hits)
    return Text("\n").join(lines)


def runs_table(runs: list["FinetuningRun"]) -> Table:
    """One row a run, with text->image recall@5 before and after, as far as they are known."""
    table = Table("name", "experiment", "state", "created", "model", "recall@5")
    for run in runs:
        recall = [values.get("text_to_image_recall@5") for values in (run.evaluation.before, run.evaluation.after)]
        table.add_row(
            Text(run.name),
            Text(run.experiment),
            run.state,
            run.created_at[:19],
            Text(str(run.settings.get("model", ""))),
            " -> ".join(_figure(value) for value in recall if value is not None),
        )
    return table


def run_table(run: "FinetuningRun") -> Table:
    """What a run was asked for and how far it is."""
    table = Table(show_header=False, title=Text(run.name))
    rows = {"state": run.state, "error": run.error, "experiment": run.experiment, "description": run.description}
    rows |= {"created": run.created_at, "finished": run.finished_at, **run.settings}
    rows |= {f"{stage} took": f"{seconds:.1f} s" for stage, seconds in run.stage_seconds.items()}
    for name, value in rows.items():
        if value not in ("", None):
            table.add_row(name, Text(str(value)))
    return table


def matches_table(matches: list["SearchMatch"]) -> Table:
    """Hits, best first."""
    table = Table("score", "key", "text")
    for match in matches:
        table.add_row(f"{match.score:.3f}", Text(match.key), Text(match.text))
    return table
