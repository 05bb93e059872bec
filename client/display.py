"""Tables for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from attune.characters import shortened
from attune.config import SETTINGS, changed_settings
from attune.figures import CHOSEN_BY, figure, p_value, say_size
from attune.kinds import IMAGE, Kind
from client.text import Text

if TYPE_CHECKING:
    from attune.evaluation.comparison import Section
    from attune.schemas import DatasetReport, EvaluationResult, Experiment, FinetuningRun, SearchMatch, StorageReport

STAGES = ("validate", "train", "evaluate", "export")


def metrics_table(run: "FinetuningRun") -> Table:
    """Before, after and difference of every metric, in both directions, with what they were measured on.

    A run that only evaluated has the columns baseline and model, or the model alone.
    """
    from attune.evaluation.comparison import comparison, sides

    result, names = run.evaluation, sides(run)
    table = _section_table(comparison(result), [*names, "difference"] if result.before else [names[1], "95 % interval"])
    notes = [_note(names, result.kind.items)] if result.before else []
    table.title = Text(f"{run.reference}: {_measured_on(result)}")
    table.caption = Text("\n".join([*notes, *result.warnings]))
    return table


def compared_table(one: "FinetuningRun", other: "FinetuningRun", section: "Section", notes: Sequence[str]) -> Table:
    """Two evaluated runs side by side, with notes below.

    Args:
        one: the first run.
        other: the second.
        section: of `attune.evaluation.two_runs.compare`.
        notes: of `attune.evaluation.two_runs.notes`.
    """
    names = (one.reference, other.reference)
    sure = any(row.low is not None for row in section.rows)
    table = _section_table(section, [*names, "difference", *["p"] * sure])
    table.title = Text(_measured_on(one.evaluation))
    models = "; ".join(f"{run.reference} is {_model(run)}" for run in (one, other))
    table.caption = Text(
        "\n".join([models, _note(names, one.evaluation.kind.items) if sure else section.definition, *notes])
    )
    return table


def _model(run: "FinetuningRun") -> str:
    model, data = run.settings.get("model"), run.settings.get("train_data")
    return f"{model} trained on {data}" if data else f"{model} as it is"


def _measured_on(result: "EvaluationResult") -> str:
    return result.kind.counted(result.items, result.belonging, held_out=True)


def _note(names: tuple[str, str], items: str) -> str:
    return f"difference: {names[1]} minus {names[0]}, with its 95 % interval (paired bootstrap over {items})"


def _section_table(section: "Section", headings: Sequence[str]) -> Table:
    """The columns before, after, difference and p, as far as there are headings; of a model alone, it and its interval."""
    alone = all(row.before is None for row in section.rows)
    table = Table("metric", caption_justify="left")
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for row in section.rows:
        style = {"better": "green", "worse": "red"}.get(row.verdict, "")
        p = "" if row.p_value is None else p_value(row.p_value)
        cells: list[str | Text] = [figure(row.before), figure(row.after), Text(row.difference, style), p]
        shown = [figure(row.after), row.interval] if alone else cells[: len(headings)]
        table.add_row(row.label, *shown, end_section=row.metric.endswith("median_rank"))
    return table


EXAMPLES = {
    "random": "Held-out queries, drawn at random",
    "better": "Held-out queries that gained most",
    "worse": "Held-out queries that lost most",
}


def examples_tables(examples: list[dict[str, Any]], names: tuple[str, str], k: int, kind: Kind = IMAGE) -> Group:
    """A table for each kind of `EXAMPLES` there are: `k` queries with the rank of the right answer and the first hits.

    Args:
        examples: see `client.Run.example_results`.
        names: what the models are called: before and after, or baseline and model.
        k: queries of each kind, at most.
        kind: of the data: whether queries look for pictures, for documents, for matches or for others of their label.
    """
    shown = {group: [one for one in examples if one.get("kind", "random") == group][:k] for group in EXAMPLES}
    tables = [_examples_table(EXAMPLES[group], found, names) for group, found in shown.items() if found]
    return Group(*tables, Text(f"✓ {_right(kind)}", "dim italic"))


def _right(kind: Kind) -> str:
    """What a right answer is, and how to know it where it is no text."""
    if kind is IMAGE:
        return "the right picture, by its first caption"
    right = "of the same label" if kind.is_single else f"a {kind.caption} of the {kind.item}"
    if kind.of_texts:
        return right
    shown = "" if kind.of_embeddings else " here, the report shows them"
    return f"{right}; {kind.items} go by label and SHA-256{shown}"


def _examples_table(title: str, examples: list[dict[str, Any]], names: tuple[str, str]) -> Table:
    whens = [(when, name) for when, name in zip(("before", "after"), names, strict=True) if f"rank_{when}" in examples[0]]
    table = Table(title=title, show_lines=True, expand=True)
    table.add_column("query", ratio=3)
    table.add_column("rank", no_wrap=True, justify="center")
    for _, name in whens:
        table.add_column(f"first hits, {name}" if len(whens) > 1 else "first hits", ratio=4)
    for example in examples:
        table.add_row(
            Text(shortened(example["query"])),
            Text(" -> ".join(str(example[f"rank_{when}"]) for when, _ in whens)),
            *(_hits(example[f"hits_{when}"], example["image"]) for when, _ in whens),
        )
    return table


def _hits(hits: list[dict[str, Any]], right: int) -> Text:
    shown = Text()
    for place, hit in enumerate(hits):
        shown.append("\n" if place else "")
        right_one = hit.get("right", hit["image"] == right)  # runs of before do not say it
        shown.append_text(
            Text(f"{'✓' if right_one else ' '} {shortened(hit['caption'], 140)}", "bold green" if right_one else "")
        )
    return shown


def runs_table(runs: list["FinetuningRun"]) -> Table:
    """One row a run, with its progress, and recall@5 before and after, as far as they are known, with its direction.

    Of a run whose captions have scores it is Spearman's correlation.
    """
    table = Table("name", "experiment", "state", "progress", "created", "model", "recall@5")
    for run in runs:
        kind, graded = run.evaluation.kind, "spearman" in run.evaluation.after
        name = "spearman" if graded else f"{kind.asked}_recall@5"
        recall = [values.get(name) for values in (run.evaluation.before, run.evaluation.after)]
        known = [figure(value) for value in recall if value is not None]
        of_what = "spearman" if graded else kind.asked.replace("_", " ")
        table.add_row(
            Text(run.name),
            Text(run.experiment),
            Text(run.state),
            run_progress(run),
            Text(run.created_at[:19]),
            Text(str(run.settings.get("model", ""))),
            f"{' -> '.join(known)} ({of_what})" if known else "",
        )
    return table


def run_progress(run: "FinetuningRun") -> str:
    """Where a run is: its place in the queue, or how far the stage at work is; empty if nothing tells."""
    if run.position:
        return f"{run.position}. in the queue"
    numbers = run.progress
    parts = [f"step {numbers['step']:.0f}/{numbers['steps']:.0f}"] if "steps" in numbers else []
    parts += [f"loss {numbers['loss']:.3f}"] if "loss" in numbers else []
    parts += [f"{what} {numbers[name]:.3f}" for name, what in CHOSEN_BY.items() if name in numbers]
    parts += [f"{numbers['pairs_per_second']:.0f} pairs/s"] if "pairs_per_second" in numbers else []
    parts += [f"{numbers['seconds_left']:.0f} s left"] if "seconds_left" in numbers else []
    return ", ".join(parts)


def experiments_table(experiments: list["Experiment"]) -> Table:
    """One row an experiment."""
    table = Table("experiment", "runs", "states", "oldest run")
    for experiment in experiments:
        states = ", ".join(f"{count} {state}" for state, count in experiment.states.items())
        table.add_row(Text(experiment.name), str(experiment.runs), Text(states), Text(experiment.created_at[:19]))
    return table


def datasets_table(datasets: list["DatasetReport"]) -> Table:
    """One row a dataset."""
    table = Table("dataset", "holds", "groups", "rejected", "fingerprint")
    for one in datasets:
        holds = one.kind.counted(one.items, one.belonging)
        table.add_row(Text(one.name), holds, str(one.groups), str(one.rejected), Text(one.fingerprint[:12]))
    return table


def storage_table(report: "StorageReport") -> Table:
    """What is kept, one row a kind."""
    table = Table(show_header=False)
    for name in ("runs", "datasets", "uploads", "indexes", "quota", "free"):
        size = getattr(report, name)
        table.add_row(name, "none" if name == "quota" and not size else say_size(size))
    return table


def run_table(run: "FinetuningRun") -> Table:
    """What a run was asked for and how far it is: the settings that are not at their default, then the others, dimmed."""
    changed = changed_settings(run.settings)
    others = {name: run.settings[name] for name in SETTINGS if name in run.settings and name not in changed}
    state = {"state": run.state, "progress": run_progress(run), "error": run.error, "experiment": run.experiment}
    state |= {"description": run.description, "created": run.created_at, "finished": run.finished_at}
    state |= {f"{stage} took": f"{run.stage_seconds[stage]:.1f} s" for stage in STAGES if stage in run.stage_seconds}
    table = Table(show_header=False, title=Text(run.reference))
    for part, style in ((state, ""), (changed, ""), (others, "dim")):
        for name, value in part.items():
            if value not in ("", None):
                table.add_row(Text(name), Text(str(value)), style=style)
        table.add_section()
    return table


def matches_table(matches: list["SearchMatch"]) -> Table:
    """Hits, best first."""
    table = Table("score", "key", "text")
    for match in matches:
        table.add_row(f"{match.score:.3f}", Text(match.key), Text(match.text))
    return table
