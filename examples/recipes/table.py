"""What a recipe finds: figures before and after, as a table for people and as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attune.files import write_text
from client.run import Run

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Row:
    """One figure of held-out data.

    Attributes:
        what: what was measured: a task, a language, a loss.
        metric: its name.
        before: of the starting model.
        after: of the tuned one.
        low: of the 95 % interval of the difference.
        high: of the same.
    """

    what: str
    metric: str
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True)
class Table:
    """What a recipe found.

    Attributes:
        rows: figures.
        settings: of the run, as given to `fit`; of several runs by what they are.
        examples: queries with their first answers before and after, where a recipe shows some.
    """

    rows: list[Row]
    settings: dict[str, Any]
    examples: list[dict[str, str]] = field(default_factory=list)


def rows_of(run: Run, what: str, metrics: Iterable[str]) -> list[Row]:
    """Figures of a finished run that has a before."""
    found = run.metrics()
    columns = ("before", "after", "difference_low", "difference_high")
    return [Row(what, metric, *(round(found[column][metric], 4) for column in columns)) for metric in metrics]


def markdown(table: Table) -> str:
    """The rows as a Markdown table."""
    lines = ["| | metric | before | after | difference (95 % interval) |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.metric} | {row.before:.3f} | {row.after:.3f} | "
        f"{row.after - row.before:+.3f} ({row.low:+.3f} to {row.high:+.3f}) |"
        for row in table.rows
    ]
    return "\n".join(lines)


def write(name: str, table: Table, seconds: float, environment: dict[str, Any]) -> Path:
    """Keeps what a recipe found, with the command and the machine."""
    path = RESULTS / f"{name}.json"
    command = f"python -m examples.recipes {name}"
    content = {"command": command, "seconds": round(seconds), "environment": environment, **asdict(table)}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def read(name: str) -> tuple[Table, dict[str, Any]]:
    """What `write` wrote: the table, and all of it."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    table = Table([Row(**row) for row in content["rows"]], content["settings"], content["examples"])
    return table, content
