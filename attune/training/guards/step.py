"""Whether a step is taken: losses and gradients that are no number, and gradients far above the usual."""

import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from attune.errors import TrainingError

LIMIT = 3
"""One bad step is a bad batch; three in a row are bad weights, which no further batch mends."""

MAX_ROLL_BACKS = 3
"""The last try is at an eighth of the learning rate. Who needs less than that has another problem."""

SPIKE = 20.0
"""Times the median gradient norm. Norms of healthy runs stay within a factor of a few, warm-up included."""

NORMS = 100
"""Finite gradient norms that the median is taken over."""

LEAST_NORMS = 10
"""Below this many the median is that of the first, untypical steps."""

ROWS_SHOWN = 8

Action = Literal["step", "skip", "roll_back"]


class Decision(NamedTuple):
    """What to do with the gradients of a step.

    Attributes:
        action: ``step``: take it. ``skip``: drop the gradients and go on with the next batch. ``roll_back``: restore
            the last checkpoint and go on from there with the learning rate times `StepGuard.rate_factor`.
        note: a line for the log, or an empty string.
    """

    action: Action
    note: str = ""


class StepGuard:
    """Keeps a loss or a gradient that is no number out of the weights.

    One is skipped; `limit` in a row mean that the weights are broken already, so training returns to the last
    checkpoint with half the learning rate; after `max_roll_backs` of these it ends.

    Args:
        limit: bad steps in a row that make a roll back.
        max_roll_backs: roll backs before the run ends.

    Attributes:
        roll_backs: so far.
        taken: steps taken.
        skipped: steps not taken.
    """

    def __init__(self, limit: int = LIMIT, max_roll_backs: int = MAX_ROLL_BACKS) -> None:
        self.limit = limit
        self.max_roll_backs = max_roll_backs
        self.roll_backs = 0
        self.taken = 0
        self.skipped = 0
        self._in_a_row = 0
        self._norms: deque[float] = deque(maxlen=NORMS)

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by: 1, and half of it after each roll back."""
        return float(0.5**self.roll_backs)

    def check(self, step: int, loss: float, gradient_norm: float, learning_rate: float, rows: Iterable[object]) -> Decision:
        """Decides on a step after its backward pass.

        Args:
            step: its number, from 1.
            loss: of the batch.
            gradient_norm: L2 norm over all parameters before clipping, as `clip_grad_norm_` returns it.
            learning_rate: of this step, with `rate_factor` in it.
            rows: names or numbers of the batch's rows; a few of them are shown.

        Raises:
            TrainingError: if a roll back is due and there were `max_roll_backs` already.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return self._finite(step, gradient_norm)
        self.skipped += 1
        self._in_a_row += 1
        found = f"the loss is {loss:g} and the gradient norm {gradient_norm:g} at step {step}"
        if self._in_a_row < self.limit:
            return Decision("skip", f"{found}: the step is not taken")
        self._in_a_row = 0
        if self.roll_backs == self.max_roll_backs:
            raise TrainingError(
                f"{_capital(found)}, for {self.limit} steps in a row, after {self.roll_backs} returns to the last "
                f"checkpoint with half the learning rate each; it is {learning_rate:g} now. Set a lower learning_rate, "
                f"use precision fp32, or look for what is unusual in this batch's rows: {_some(rows)}"
            )
        self.roll_backs += 1
        return Decision(
            "roll_back",
            f"{found}, for {self.limit} steps in a row: back to the last checkpoint, with {self.rate_factor:g} times "
            f"the learning rate (return {self.roll_backs} of {self.max_roll_backs})",
        )

    def check_end(self) -> None:
        """At the end of a run: a run so short that no roll back came due must not pass for a trained one.

        Raises:
            TrainingError: if there were steps and not one was taken.
        """
        if self.skipped and not self.taken:
            raise TrainingError(
                f"No step was taken: in all {self.skipped} the loss or the gradient was no finite number. Set a lower "
                "learning_rate, use precision fp32, and check that the starting model's weights are finite"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and a list of them, for a checkpoint."""
        return {
            "roll_backs": self.roll_backs,
            "taken": self.taken,
            "skipped": self.skipped,
            "in_a_row": self._in_a_row,
            "norms": list(self._norms),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave. For a resumed run, not for a roll back: that would be forgotten."""
        self.roll_backs, self.taken, self.skipped = state["roll_backs"], state["taken"], state["skipped"]
        self._in_a_row = state["in_a_row"]
        self._norms = deque(state["norms"], maxlen=NORMS)

    def _finite(self, step: int, gradient_norm: float) -> Decision:
        self.taken += 1
        self._in_a_row = 0
        usual = statistics.median(self._norms) if len(self._norms) >= LEAST_NORMS else math.inf
        self._norms.append(gradient_norm)
        if gradient_norm <= SPIKE * usual:
            return Decision("step")
        return Decision(
            "step",
            f"the gradient norm is {gradient_norm:g} at step {step}, usual is {usual:g}: it is clipped like any other",
        )


def _some(rows: Iterable[object]) -> str:
    names = [str(row) for row in itertools.islice(rows, ROWS_SHOWN + 1)]
    return ", ".join(names[:ROWS_SHOWN]) + (", and more" if len(names) > ROWS_SHOWN else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
