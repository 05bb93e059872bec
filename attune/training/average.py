"""Running average of the weights while they train, and weights between two models'."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of all weights and buffers that training changes (Polyak averaging).

    Early on, when there is little to average, it follows the weights faster: step t counts at least 1 / (t + 10)
    (the warm-up of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: value.detach().clone() for name, value in _moving(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights as they are after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _moving(model).items():
            self.values[name].lerp_(value, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own again afterwards."""
        own = {name: value.detach().clone() for name, value in _moving(model).items()}
        _put(model, self.values)
        try:
            yield
        finally:
            _put(model, own)

    def state_dict(self) -> dict[str, Tensor | int]:
        """What a checkpoint keeps."""
        return {**self.values, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Puts back what `state_dict` gave."""
        for name, value in state.items():
            if isinstance(value, Tensor):
                self.values[name].copy_(value)
            else:
                self.steps = value


def between(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line from one model to another fine-tuned from it (WiSE-FT, arXiv:2109.01903).

    Args:
        start: state dict of the starting model.
        end: state dict of the fine-tuned one, with the same names and shapes.
        share: 0 is the start, 1 the end.
    """
    counted = end if share else start  # counters, such as those of BatchNorm, are of one or the other
    return {
        name: torch.lerp(value.float(), end[name].float(), share).to(value.dtype)
        if value.is_floating_point()
        else counted[name]
        for name, value in start.items()
    }


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and running statistics of BatchNorm, and no attention masks."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad} | statistics(model)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Saved floating-point buffers, by name: running statistics, which every forward pass in training mode changes."""
    saved = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers() if name in saved and value.is_floating_point()}


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in _moving(model).items():
        value.copy_(values[name])
