"""Guards of a training: each looks at numbers and says what to do, or ends the run with what was found and what helps."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from attune.kinds import IMAGE, Kind
from attune.training.guards.chance import SCRATCH_PATIENCE, ScaleGuard, StuckGuard, chance_loss
from attune.training.guards.collapse import Health, check_collapse, check_start, embedding_health
from attune.training.guards.recall import RATE_AFTER_FALL, first_check, is_chance, is_uncorrelated, is_unsorted
from attune.training.guards.step import Action, Decision, StepGuard

__all__ = [
    "RATE_AFTER_FALL",
    "Action",
    "Decision",
    "Guards",
    "Health",
    "ScaleGuard",
    "StepGuard",
    "StuckGuard",
    "chance_loss",
    "check_collapse",
    "check_start",
    "embedding_health",
    "first_check",
    "is_chance",
    "is_uncorrelated",
    "is_unsorted",
]


WRONG = 1.5
"""Times ln(batch): a first loss above that is of a start that is confident and wrong, and not of a few hard pairs."""


class Guards:
    """The guards of a run, as one.

    Args:
        log: takes lines that the guards have to say, with ``kind="guard"`` and ``step``.
        warmup_steps: over which the learning rate rises; no loss is judged before.
        start_scale: the exponentiated logit_scale of the starting model, at least 1.
        scratch: whether the weights start random: learning may then begin late, the scale may move, and embeddings may
            be all alike on the way.
        kind: what the validation part holds, for messages.
    """

    def __init__(
        self,
        log: Callable[..., None],
        warmup_steps: int,
        start_scale: float,
        scratch: bool = False,
        kind: Kind = IMAGE,
    ) -> None:
        self.log = log
        self.kind = kind
        self.scratch = False
        self.step = StepGuard()
        self.stuck = StuckGuard(warmup_steps)
        self.scale = ScaleGuard(start_scale)
        self._start: dict[str, Health] = {}
        if scratch:
            self.expect_nothing_of_the_start()

    def expect_nothing_of_the_start(self) -> None:
        """From here on as with random weights: the start knows nothing of these pairs, and has nothing to lose."""
        self.scratch = self.scale.scratch = True
        self.stuck.patience = SCRATCH_PATIENCE

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by: 1, and half of it after each roll back."""
        return self.step.rate_factor

    def after_step(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
        rows: Iterable[object],
        scale: float,
        chance: float | None,
    ) -> Action:
        """What to do with the gradients of a step; see `StepGuard.check` for the first five.

        Args:
            step: its number, from 1.
            loss: of the batch.
            gradient_norm: before clipping.
            learning_rate: of this step.
            rows: names or numbers of the batch's rows.
            scale: exponentiated logit_scale.
            chance: see `chance_loss`; None for losses that are not ln(batch) where nothing is told apart, as SigLIP's.

        Raises:
            TrainingError: if a guard gives up.
        """
        action, note = self.step.check(step, loss, gradient_norm, learning_rate, rows)
        self._say(note, step)
        if step == 1 and chance is not None and loss > WRONG * chance and not self.scratch:
            # Its confident answers are wrong, as to captions in a new language: it gives them up before it learns others.
            self.expect_nothing_of_the_start()
            self._say(f"loss {loss:.2f}, and ln(batch) is {chance:.2f}: guarded as random weights are", step)
        if action == "step":
            if chance is not None:
                self.stuck.check(step, loss, chance)
            self._say(self.scale.check(step, scale, self.stuck.ratio), step)
        return action

    def check_end(self, step: int) -> None:
        """Looks back on a run that has taken its last step.

        Args:
            step: its number.

        Raises:
            TrainingError: see `StepGuard.check_end`.
        """
        self.step.check_end()
        self._say(self.stuck.at_end(), step)

    def after_validation(self, images: np.ndarray, texts: np.ndarray, where: str = "") -> dict[str, Health]:
        """Looks at the validation part's embeddings; the first ones are the start that others are compared with.

        Args:
            images: unit length, (images, dim).
            texts: unit length, (texts, dim).
            where: such as ``"after epoch 2"``, for the message.

        Returns:
            The health of ``pictures`` and ``captions``, or what the data's kind calls them.

        Raises:
            TrainingError: if either are all alike now, or no numbers; see `check_collapse` and `check_start`.
        """
        health = {self.kind.items: embedding_health(images)}
        if len(texts):  # single items have none
            health[self.kind.captions] = embedding_health(texts)
        if not self._start:
            check_start(health)
            self._start = health
        for what, now in health.items():
            # Random weights are compared with nothing: on their way they may well be all alike for a while.
            check_collapse(now, now if self.scratch else self._start[what], what, where)
        return health

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        return {
            "step": self.step.state_dict(),
            "stuck": self.stuck.state_dict(),
            "scale": self.scale.state_dict(),
            "scratch": self.scratch,
            "start": {what: list(health) for what, health in self._start.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave. For a resumed run; a roll back would be forgotten by it."""
        self.step.load_state_dict(state["step"])
        self.stuck.load_state_dict(state["stuck"])
        self.scale.load_state_dict(state["scale"])
        self._start = {what: Health(*figures) for what, figures in state["start"].items()}
        if state["scratch"]:
            self.expect_nothing_of_the_start()

    def _say(self, note: str, step: int) -> None:
        if note:
            self.log(note, kind="guard", step=step)
