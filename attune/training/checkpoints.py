"""Files of weights in the run folder.

recipe.json          what settings, model and data came to where training began: see `attune.training.decide`
start.safetensors    the weights before the first step: what "before" is measured with
best.safetensors     the weights that are best on validation so far, those of the start among them
chosen.safetensors   the result, in the artifact's precision: what "after" is measured with, and what is exported
last.pt              weights, average, optimizer, guards, position after an epoch: what a run resumes from or goes back to
within.pt            the same in the middle of an epoch: of long ones every few minutes, and where training was asked to stop
epoch-N.safetensors  the weights after one of the last epochs, where a `TrainingCheckpoint` asks for them
optimizer.safetensors  of a finished training, for runs that continue it: see `attune.training.continuing`
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from attune.files import whole_file
from attune.models.weights import forbid_unpickling, save_weights
from attune.runs.folder import RunFolder

SECONDS_BETWEEN = 600.0
"""Within an epoch. Epochs of large data take hours, and a process that is killed does not say so before."""


class Stateful(Protocol):
    """Something that can be written down and put back."""

    def state_dict(self) -> dict[str, Any]:
        """What it is now."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Makes it what it was."""
        ...


class Checkpoints:
    """The checkpoints folder of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self.start = folder.start_weights
        self.best = folder.checkpoints / "best.safetensors"
        self.chosen = folder.chosen_weights
        self.last = folder.checkpoints / "last.pt"
        self.within = folder.checkpoints / "within.pt"
        self.folder = folder.checkpoints
        self._saved = time.monotonic()
        self.optimizer = folder.checkpoints / "optimizer.safetensors"

    def save(self, position: dict[str, Any], within_epoch: bool = False, **parts: Stateful) -> None:
        """Writes `last.pt`, or `within.pt`, as a whole: a run that is killed meanwhile resumes from the one before."""
        with whole_file(self.within if within_epoch else self.last) as draft:
            with draft.open("wb") as file:  # of a path torch would not say that the disk is full
                torch.save({"position": position, **{name: part.state_dict() for name, part in parts.items()}}, file)
            if not within_epoch:
                self.within.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def keep(self, weights: Mapping[str, Tensor], epoch: int, last: int) -> None:
        """Writes the weights after an epoch, and removes those that are not of the last so many.

        Done again after a resume it writes the same: weights of epochs that are yet to be done again are removed as well.
        """
        save_weights(self.folder / f"epoch-{epoch}.safetensors", weights)
        for path in self.folder.glob("epoch-*.safetensors"):
            number = int(path.stem.removeprefix("epoch-"))
            if not epoch - last < number <= epoch:
                path.unlink()

    @property
    def is_due(self) -> bool:
        """Whether so much time went by since the last one that losing it would hurt."""
        return time.monotonic() - self._saved > SECONDS_BETWEEN

    def restore(self, device: torch.device, back: bool = False, **parts: Stateful) -> dict[str, Any] | None:
        """Puts the parts back to a checkpoint and returns its position; None if there is none.

        Args:
            device: where the weights are.
            back: to the end of the last epoch, although training may have been stopped since: guards ask for it.
            **parts: what `save` was given.
        """
        path = self.within if self.within.exists() and not back else self.last
        if not path.exists():
            return None
        forbid_unpickling()
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        position: dict[str, Any] = state["position"]
        return position
