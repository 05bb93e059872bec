"""How fast a training goes once it is going."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A moment at which a training had finished a step.

    Attributes:
        moment: Unix time in seconds.
        epoch: any number, the same for all steps of an epoch.
        step: within its epoch, from 1.
    """

    moment: float
    epoch: int
    step: int


@dataclass(frozen=True)
class Pace:
    """Steady throughput.

    Attributes:
        captions: seen in the measured time.
        seconds: the measured time.
        start: Unix time of its begin.
        end: Unix time of its end.
    """

    captions: float
    seconds: float
    start: float
    end: float

    @property
    def captions_per_second(self) -> float:
        """Captions trained on per second."""
        return self.captions / self.seconds


def steady_pace(marks: Sequence[Mark], steps: int, captions: int, edge: int) -> Pace:
    """Throughput in the middle of each epoch.

    The first steps of an epoch are left out because they wait for workers to start, and the last ones because they
    use up what the workers have prepared: either would tell of a pace that cannot be kept up.

    Args:
        marks: in order of time; not every step needs one.
        steps: of an epoch.
        captions: that an epoch trains on.
        edge: steps to leave out at either end of an epoch, besides the first step.

    Raises:
        ValueError: if no epoch has two marks in its middle.

    Example:
        Marks at steps 1 to 10 of one epoch, one a second, 10 steps with 50 captions in all, edge 2: the time from step
        3 to step 8 counts, 5 seconds in which 25 captions were seen: 5 captions a second.
    """
    seen = seconds = 0.0
    used: list[Mark] = []
    for epoch in sorted({mark.epoch for mark in marks}):
        middle = [mark for mark in marks if mark.epoch == epoch and edge < mark.step <= steps - edge]
        if len(middle) > 1:
            seen += (middle[-1].step - middle[0].step) * captions / steps
            seconds += middle[-1].moment - middle[0].moment
            used += [middle[0], middle[-1]]
    if not used:
        raise ValueError(
            f"{len(marks)} marks in epochs of {steps} steps are too few to leave out {edge} at either end. "
            "Measure more steps (--steps)"
        )
    return Pace(seen, seconds, used[0].moment, used[-1].moment)
