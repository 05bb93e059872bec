"""Two runs side by side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from attune.errors import EvaluationError, RunError
from client.display import compared_table
from client.files import read_file
from client.transport import Transport

if TYPE_CHECKING:
    from attune.evaluation.comparison import Section
    from attune.evaluation.kept_ranks import Ranks
    from attune.schemas import FinetuningRun


@dataclass(frozen=True)
class RunComparison:
    """Two evaluated runs beside each other. `AttuneClient.compare` returns it.

    Attributes:
        one: the first run.
        other: the second.
        section: a row for each metric: `before` is the first run's figure, `after` the second's.
    """

    one: "FinetuningRun"
    other: "FinetuningRun"
    section: "Section"

    def metrics(self) -> dict[str, dict[str, float]]:
        """`one`, `other`, `difference` (other minus one), its `difference_low`, `difference_high`, `p_values`, by metric."""
        found: dict[str, dict[str, float]] = {}
        for row in self.section.rows:
            difference = None if row.before is None or row.after is None else row.after - row.before
            for name, value in (
                ("one", row.before),
                ("other", row.after),
                ("difference", difference),
                ("difference_low", row.low),
                ("difference_high", row.high),
                ("p_values", row.p_value),
            ):
                found.setdefault(name, {}).update({row.metric: value} if value is not None else {})
        return found

    @property
    def notes(self) -> list[str]:
        """What to know of the figures: why classification is left out, if it is, and each run's warnings after its name."""
        from attune.evaluation.two_runs import notes

        return notes(self.one, self.other)

    def table(self) -> Table:
        """Both runs' figures and their differences, with the notes below, for rich."""
        return compared_table(self.one, self.other, self.section, self.notes)

    def display(self) -> None:
        """Prints the table and the notes."""
        Console().print(self.table())


def compare_runs(transport: Transport, one: "FinetuningRun", other: "FinetuningRun") -> RunComparison:
    """Two evaluated runs, with intervals where both kept the ranks of their queries.

    Raises:
        EvaluationError: if they were not measured alike, or are one and the same.
    """
    from attune.evaluation.two_runs import compare, refuse_unlike

    if one.reference == other.reference:
        raise EvaluationError(
            f"{one.reference!r} cannot be compared with itself: name two runs. Its own before and after are in its figures"
        )
    refuse_unlike(one, other)
    left, right = (_ranks(transport, run.reference) for run in (one, other))
    return RunComparison(one, other, compare(one, other, (left, right) if left and right else None))


def _ranks(transport: Transport, run: str) -> "Ranks | None":
    from attune.evaluation.kept_ranks import FILE, unpack

    try:
        return unpack(read_file(transport, run, FILE))
    except RunError:  # evaluated before ranks were kept
        return None
