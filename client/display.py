"""Tables for the terminal."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from attune.schemas import FinetuningRun, SearchMatch


def metrics_table(run: "FinetuningRun") -> Table:
    """Before, after and difference of every metric, in both directions, with what they were measured on."""
    from attune.comparison import comparison

    result = run.evaluation
    table = Table(
        title=Text(f"{run.name}: {result.images} held-out pictures, {result.captions} captions"),
        caption="difference: after minus before, with its 95 % interval (paired bootstrap over pictures)",
    )
    table.add_column("metric")
    for heading in ("before", "after", "difference"):
        table.add_column(heading, justify="right")
    rows = comparison(result).rows
    for number, row in enumerate(rows, start=1):
        style = {"better": "green", "worse": "red"}.get(row.verdict, "")
        table.add_row(row.label, f"{row.before:.3f}", f"{row.after:.3f}", Text(row.difference, style))
        if 2 * number == len(rows):
            table.add_section()
    return table


def examples_table(examples: list[dict[str, Any]]) -> Table:
    """Queries with the rank of the right picture and the captions of the first hits, before and after."""
    table = Table(caption="held-out queries; the right picture in green", show_lines=True)
    table.add_column("query", ratio=3)
    table.add_column("rank", no_wrap=True)
    table.add_column("first hits before", ratio=4)
    table.add_column("first hits after", ratio=4)
    for example in examples:
        table.add_row(
            Text(example["query"]),
            f"{example['rank_before']} -> {example['rank_after']}",
            _hits(example["hits_before"], example["image"]),
            _hits(example["hits_after"], example["image"]),
        )
    return table


def _hits(hits: list[dict[str, Any]], right: int) -> Text:
    lines = (Text(hit["caption"], "bold green" if hit["image"] == right else "") for hit in hits)
    return Text("\n").join(lines)


def runs_table(runs: list["FinetuningRun"]) -> Table:
    """One row a run, with text->image recall@5 before and after where it is known."""
    table = Table("name", "experiment", "state", "created", "model", "recall@5")
    for run in runs:
        recall = [values.get("text_to_image_recall@5") for values in (run.evaluation.before, run.evaluation.after)]
        table.add_row(
            Text(run.name),
            Text(run.experiment),
            run.state,
            run.created_at[:19],
            Text(str(run.settings.get("model", ""))),
            "" if None in recall else f"{recall[0]:.3f} -> {recall[1]:.3f}",
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
