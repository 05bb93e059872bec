"""Files of weights in the run folder.

start.safetensors    the weights before the first step: what "before" is measured with
best.safetensors     the weights with the best validation recall so far, those of the start among them
chosen.safetensors   the result, in the artifact's precision: what "after" is measured with, and what is exported
last.pt              weights, average, optimizer, guards and position: what a run resumes from
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

    def save(self, position: dict[str, Any], **parts: Stateful) -> None:
        """Writes `last.pt` as a whole: a run that is killed meanwhile resumes from the one before."""
        with whole_file(self.last) as draft:
            torch.save({"position": position, **{name: part.state_dict() for name, part in parts.items()}}, draft)

    def restore(self, device: torch.device, **parts: Stateful) -> dict[str, Any] | None:
        """Puts the parts back to the last checkpoint and returns its position; None if there is none."""
        if not self.last.exists():
            return None
        state: dict[str, Any] = torch.load(self.last, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        position: dict[str, Any] = state["position"]
        return position
