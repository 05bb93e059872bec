"""Files of weights in the run folder.

start.safetensors    the weights before the first step: what "before" is measured with
best.safetensors     the weights with the best validation recall so far, those of the start among them
chosen.safetensors   the result, in the artifact's precision: what "after" is measured with, and what is exported
last.pt              weights, average, optimizer, guards, position after an epoch: what a run resumes from or goes back to
stopped.pt           the same in the middle of an epoch, if training was asked to stop there
"""

from typing import Any, Protocol

import torch

from attune.files import whole_file
from attune.runs import RunFolder


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
        self.stopped = folder.checkpoints / "stopped.pt"

    def save(self, position: dict[str, Any], stopped: bool = False, **parts: Stateful) -> None:
        """Writes `last.pt`, or `stopped.pt`, as a whole: a run that is killed meanwhile resumes from the one before."""
        with whole_file(self.stopped if stopped else self.last) as draft:
            torch.save({"position": position, **{name: part.state_dict() for name, part in parts.items()}}, draft)
            if not stopped:
                self.stopped.unlink(missing_ok=True)

    def restore(self, device: torch.device, back: bool = False, **parts: Stateful) -> dict[str, Any] | None:
        """Puts the parts back to a checkpoint and returns its position; None if there is none.

        Args:
            device: where the weights are.
            back: to the end of the last epoch, although training may have been stopped since: guards ask for it.
            **parts: what `save` was given.
        """
        path = self.stopped if self.stopped.exists() and not back else self.last
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        position: dict[str, Any] = state["position"]
        return position
