"""Before and after, row by row: what tables show of an evaluation."""

from collections.abc import Iterator
from typing import NamedTuple

from attune.metrics import DIRECTIONS, KS
from attune.schemas import EvaluationResult


class Row(NamedTuple):
    """One metric in one direction.

    Attributes:
        label: such as ``text to image recall@5``.
        before: of the starting model.
        after: of the chosen weights.
        interval: 2.5 % and 97.5 % end of their difference, if it has one.
        ends_direction: whether the next row is of the other direction.
    """

    label: str
    before: float
    after: float
    interval: tuple[float, float] | None
    ends_direction: bool

    @property
    def difference(self) -> str:
        """After minus before with a sign, and its interval in brackets."""
        text = f"{self.after - self.before:+.3f}"
        return f"{text} ({self.interval[0]:+.3f} to {self.interval[1]:+.3f})" if self.interval else text


def comparison(result: EvaluationResult) -> Iterator[Row]:
    """Recall@1, 5 and 10, MRR and median rank, text to image first."""
    names = [*(f"recall@{k}" for k in KS), "mrr", "median_rank"]
    for direction in DIRECTIONS:
        for name in names:
            key = f"{direction}_{name}"
            low, high = result.difference_low.get(key), result.difference_high.get(key)
            yield Row(
                label=f"{direction} {name}".replace("_", " "),
                before=result.before[key],
                after=result.after[key],
                interval=None if low is None or high is None else (low, high),
                ends_direction=name == names[-1],
            )
