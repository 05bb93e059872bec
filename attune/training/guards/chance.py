"""Whether anything is learnt: a contrastive loss of ln(batch) is that of a model that tells nothing apart."""

import math
import statistics
from collections import deque
from typing import Any

from attune.errors import TrainingError

MARGIN = 0.02
"""A mean loss within 2 % of ln(batch) is no better than chance; the first real signal moves it by more than that."""

WINDOW = 20
"""Losses averaged. One batch's loss varies by a few percent, the mean of 20 by less than `MARGIN`."""

PATIENCE = 100
"""Steps that a pre-trained model may spend at ln(batch) after warm-up. It should be below from its first step."""

SCRATCH_PATIENCE = 1000
"""The same for random weights, which often stay there for some hundred steps before they begin to learn."""

DRIFT = 0.1
"""Change of the scale that is worth a word: fine-tuning hardly moves it."""

SCALE_LEFT = 0.5
"""Share of the start's scale. A model lowers it when its confident answers are wrong; noise takes off a few percent."""

NEAR_CHANCE = 0.1
"""A mean loss this share of ln(batch) away from it is close to it. A model that learns is far below when its scale has
halved; one far above is giving up wrong confidence, and may yet learn."""


def chance_loss(images: int, texts: int) -> float:
    """CLIP's loss where nothing is told apart: ln(batch); the mean of ln(images) and ln(texts) if these differ.

    With ignored pairs in the batch it is a little lower, and a model at chance then passes for one that has begun to learn.

    Args:
        images: pictures of the batch, over all processes, at least 2.
        texts: captions of the batch, likewise.
    """
    return (math.log(images) + math.log(texts)) / 2


class StuckGuard:
    """Ends a run whose loss stays at ln(batch) from the end of the warm-up on.

    Shuffled pairs give a confident model a loss above that, which comes down to it in time: such steps do not count. A
    loss clearly below ends the watch for good. Only for losses that are ln(batch) where nothing is told apart, as CLIP's
    is; SigLIP's is not.

    Args:
        warmup_steps: no loss is looked at before: learning rates are still low.
        patience: steps for which the running mean may be within `MARGIN` of ln(batch).
    """

    def __init__(self, warmup_steps: int, patience: int = PATIENCE) -> None:
        self.warmup_steps = warmup_steps
        self.patience = patience
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._steps_at_chance = 0
        self._learns = False

    @property
    def ratio(self) -> float:
        """Running mean of loss / ln(batch) over `WINDOW` steps; NaN until there are as many after warm-up."""
        return statistics.fmean(self._ratios) if len(self._ratios) == WINDOW else math.nan

    def check(self, step: int, loss: float, chance: float) -> None:
        """Looks at the loss of a step that was taken.

        Args:
            step: its number, from 1.
            loss: finite.
            chance: what it would be if nothing were told apart; see `chance_loss`.

        Raises:
            TrainingError: if the running mean was at ln(batch) for `patience` steps, and never below.
        """
        if step <= self.warmup_steps:
            return
        self._ratios.append(loss / chance)
        ratio = self.ratio
        if self._learns or math.isnan(ratio):
            return
        self._learns = ratio < 1 - MARGIN
        self._steps_at_chance += abs(ratio - 1) <= MARGIN
        if self._steps_at_chance >= self.patience:
            raise TrainingError(
                f"Nothing is learnt: at step {step} the loss is {ratio * chance:.3f} on average. For "
                f"{self._steps_at_chance} steps it was within {MARGIN:.0%} of ln(batch) = {chance:.3f}, that of a model "
                "that tells nothing apart, and never below. The pairs look shuffled or duplicated: check that the two "
                "of each belong together; or the learning_rate is far too low or too high: try a tenth and ten times of it"
            )

    def at_end(self) -> str:
        """A line for the log if a run ends at ln(batch) that was not there for `patience` steps; else an empty string."""
        if self._learns or not abs(self.ratio - 1) <= MARGIN:  # NaN of a run too short to tell
            return ""
        return (
            f"to the end the loss was within {MARGIN:.0%} of ln(batch), that of a model that tells nothing apart. If "
            "validation is no better either, train more epochs: random weights often need hundreds of steps before they "
            "begin; or the learning_rate is far too low or too high, or the pairs are shuffled"
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and a list of them, for a checkpoint."""
        return {"ratios": list(self._ratios), "steps_at_chance": self._steps_at_chance, "learns": self._learns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._ratios = deque(state["ratios"], maxlen=WINDOW)
        self._steps_at_chance, self._learns = state["steps_at_chance"], state["learns"]


class ScaleGuard:
    """Watches the temperature of a pre-trained model: a scale that falls says that confident answers are wrong.

    Of a model that starts from random weights it says nothing: there the scale rises from 14 to as much as 100.

    Args:
        start_scale: the exponentiated logit_scale of the starting model, at least 1.
        scratch: whether the weights start random.
    """

    def __init__(self, start_scale: float, scratch: bool = False) -> None:
        self.start_scale = start_scale
        self.scratch = scratch
        self._warned = False

    def check(self, step: int, scale: float, loss_ratio: float) -> str:
        """Looks at the scale after a step.

        Args:
            step: its number, from 1.
            scale: exponentiated logit_scale.
            loss_ratio: `StuckGuard.ratio`; NaN says that it is not known yet.

        Returns:
            A line for the log, the first time the scale is more than `DRIFT` away from the start; else an empty string.

        Raises:
            TrainingError: if the scale is below half the start's and the loss is close to ln(batch).
        """
        if self.scratch:
            return ""
        if scale < SCALE_LEFT * self.start_scale and abs(loss_ratio - 1) < NEAR_CHANCE:
            raise TrainingError(
                f"The logit scale fell from {self.start_scale:.1f} to {scale:.1f} by step {step}, and the loss is "
                f"{loss_ratio:.2f} times ln(batch): the model is unlearning to tell pairs apart. The pairs look mismatched "
                "or duplicated: check that the two of each belong together; if they are right, set a lower learning_rate"
            )
        if self._warned or abs(scale / self.start_scale - 1) <= DRIFT:
            return ""
        self._warned = True
        return (
            f"the logit scale moved from {self.start_scale:.1f} to {scale:.1f} by step {step}: a fall hints at mismatched "
            "or duplicated pairs, a rise at pairs that are learnt by heart"
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"start_scale": self.start_scale, "warned": self._warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave: the start is that of the whole run, not of the resumed part."""
        self.start_scale, self._warned = state["start_scale"], state["warned"]
