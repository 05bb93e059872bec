"""Checkpoints of a run: written after each epoch; the start, the best and the last are kept.

start.safetensors  the weights before the first step: what "before" is measured with
best.safetensors   the weights of the epoch with the best validation recall, epoch 0 being the start
last.pt            weights, optimizer and history after the last epoch: what a run resumes from
"""

from pathlib import Path
from typing import Any, TypedDict

import torch

from attune.files import whole_file
from attune.models.clip import Clip


class Epoch(TypedDict):
    """What is known after an epoch; epoch 0 is the starting model."""

    epoch: int
    loss: float
    mean_recall: float


class Checkpoints:
    """The checkpoints folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = folder / "start.safetensors"
        self.best = folder / "best.safetensors"
        self.last = folder / "last.pt"
        self.history: list[Epoch] = []

    def resume(self, clip: Clip, optimizer: torch.optim.Optimizer) -> bool:
        """Puts model, optimizer and history back to the last finished epoch; False if there is none."""
        if not self.last.exists():
            return False
        state: dict[str, Any] = torch.load(self.last, map_location=clip.device, weights_only=True)
        clip.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        return True

    def save(self, clip: Clip, optimizer: torch.optim.Optimizer, done: Epoch, dtype: torch.dtype) -> None:
        """Writes the checkpoint of a finished epoch; `best` too if none before it was as good.

        Args:
            clip: the model.
            optimizer: its optimizer.
            done: the finished epoch.
            dtype: of the weights in `best`, which are what is evaluated and exported.
        """
        self.history.append(done)
        if done["epoch"] == 0:
            _save_weights(clip, self.start, None)
        if self.best_epoch()["epoch"] == done["epoch"]:
            _save_weights(clip, self.best, dtype)
        state = {"model": clip.model.state_dict(), "optimizer": optimizer.state_dict(), "history": self.history}
        with whole_file(self.last) as draft:
            torch.save(state, draft)

    def best_epoch(self) -> Epoch:
        """The first epoch of the highest mean validation recall."""
        return max(self.history, key=lambda epoch: epoch["mean_recall"])


def _save_weights(clip: Clip, path: Path, dtype: torch.dtype | None) -> None:
    with whole_file(path) as draft:
        clip.save_weights(draft, dtype)
