"""Where a training is, and what it has found so far: all that a resumed run needs to go on as if it had not stopped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Candidate:
    """Weights that may become the result.

    Attributes:
        epoch: after which they were; 0 is the start.
        kind: `start`, `weights` or `average`.
        mean_recall: on the validation part, over both directions and @1/5/10; where captions have scores, Spearman's
            correlation of similarities with them; of single items MAP@R.
        loss: mean training loss of the epoch.
        figures: what else is monitored, by name.
        figure: what it is chosen by instead of mean recall, if by anything else; more is better.
        of_items: what each item of the validation part adds to mean recall, float32 (items,), in the main process; None if
            that cannot be told. See `attune.training.compare`.
        is_behind: whether it is clearly worse than the highest by then, or that cannot be told.
    """

    epoch: int
    kind: str
    mean_recall: float
    loss: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    figure: float | None = None
    of_items: Tensor | None = field(default=None, compare=False)
    is_behind: bool = True

    @property
    def worth(self) -> float:
        """What it is chosen by; more is better."""
        return self.mean_recall if self.figure is None else self.figure


@dataclass
class Position:
    """Progress of a training.

    Attributes:
        epoch: the one at work, from 1.
        step: steps of it that are done.
        losses: of those steps.
        rate: factor on the learning rate; guards lower it.
        micro_batch_size: pictures in memory at once, if the whole batch did not fit.
        rolled_back: whether training was started over after a first validation that was far worse than the start.
        progress: time and pairs by then, see `attune.training.progress`.
        history: size of the run's history when this was written down, in bytes.
        candidates: all that were measured, in order.
    """

    epoch: int = 1
    step: int = 0
    losses: list[float] = field(default_factory=list)
    rate: float = 1.0
    micro_batch_size: int | None = None
    rolled_back: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    history: int = 0
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def start(self) -> Candidate:
        """The model as it came."""
        return self.candidates[0]

    @property
    def highest(self) -> Candidate:
        """The first of the highest validation recall, or of the best figure that is monitored instead."""
        return max(self.candidates, key=lambda candidate: candidate.worth)

    @property
    def best(self) -> Candidate:
        """The highest, or the last after it that is better than the start and not clearly behind it.

        Of many candidates the highest is so in part by luck, the more the fewer items it was measured on; later weights
        have been trained longer, at smaller rates. (The rule of one standard error prefers the simpler model in this way:
        Breiman, Friedman, Olshen & Stone 1984, Classification and Regression Trees, section 3.4.3.)
        """
        highest = self.highest
        later = self.candidates[self.candidates.index(highest) + 1 :]
        as_good = [one for one in later if not one.is_behind and one.worth > self.start.worth]
        return as_good[-1] if as_good else highest

    def next_epoch(self) -> None:
        """Moves on to the first step of the next epoch."""
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Position":
        """What `state_dict` gave, as it was."""
        return cls(**{**state, "candidates": [_on_cpu(Candidate(**candidate)) for candidate in state["candidates"]]})


def _on_cpu(candidate: Candidate) -> Candidate:
    if candidate.of_items is not None:  # a checkpoint is read to where the weights are
        candidate.of_items = candidate.of_items.cpu()
    return candidate
