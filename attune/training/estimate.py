"""What a run takes: steps, time and memory, from small steps that were tried."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOAT_BYTES = 4

FEW_STEPS = 50
"""Below this, fine-tuning rates move a model little: with a tenth of warm-up hardly 40 steps are at the full rate."""

LONG_ENOUGH = 1.0
"""Seconds: what a step costs before its first picture, which on a busy machine can be most of it, is little against that."""


class Estimate(NamedTuple):
    """What a run takes, roughly.

    Attributes:
        steps: optimizer steps.
        seconds: of stepping; validation and checkpoints come on top.
        memory_bytes: at the peak of a step.
        advice: what to change; empty if nothing.
    """

    steps: int
    seconds: float
    memory_bytes: int
    advice: str

    def describe(self) -> str:
        """One line for the log, such as ``about 96 steps, 3 min, 1.9 GB``."""
        line = f"about {self.steps} steps, {_duration(self.seconds)}, {_size(self.memory_bytes)}"
        return f"{line}. {self.advice}" if self.advice else line


def estimate(
    steps: int,
    seconds_per_step: float,
    parameters: int,
    trainable: int,
    moments: int = 2,
    activation_bytes: int = 0,
    average: bool = False,
    short_bytes: int = 0,
) -> Estimate:
    """What a run takes: time as measured on one step, memory as the sum of its large parts, all in float32.

    Args:
        steps: optimizer steps of the run.
        seconds_per_step: of one real step.
        parameters: numbers in the model.
        trainable: those among them that training changes: each has a gradient and moments.
        moments: numbers that the optimizer keeps for each; Adam two.
        activation_bytes: kept for the backward pass of one micro batch; see `activation_bytes`.
        average: whether a running average of the trained weights is kept.
        short_bytes: memory that is missing, as far as is known.
    """
    numbers = parameters + trainable * (1 + moments + average)
    memory = numbers * FLOAT_BYTES + activation_bytes
    advice = []
    if short_bytes:
        advice.append(
            f"That is {_size(short_bytes)} more memory than there is: set a smaller micro_batch_size, or choose a smaller "
            "model"
        )
    if steps < FEW_STEPS:
        advice.append(f"Fewer than {FEW_STEPS} steps change little: raise epochs, or lower batch_size")
    return Estimate(steps, steps * seconds_per_step, memory, ". ".join(advice))


def step_seconds(seconds_of: Callable[[int], float], pictures: int, at_most: int) -> float:
    """Seconds of a step, from smaller ones: a step costs something of itself, and then so much a picture.

    Steps of four pictures, sixteen and so on are tried until one is `LONG_ENOUGH`. The last two tell what a picture costs.

    Args:
        seconds_of: tries a step with so many pictures.
        pictures: of the step, at least 1.
        at_most: pictures that may be tried.

    Example:
        Where 4 pictures take 0.8 s and 16 take 1.1 s, a picture costs 0.025 s, and 256 take 1.1 + 240 x 0.025 = 7.1 s.
    """
    most = max(1, min(pictures, at_most))
    tried = min(4, most)
    seconds = seconds_of(tried)
    a_picture = seconds / tried
    while tried < most and seconds < LONG_ENOUGH:
        larger = min(4 * tried, most)
        longer = seconds_of(larger)
        a_picture = max(0.0, longer - seconds) / (larger - tried)
        tried, seconds = larger, longer
    return seconds + a_picture * (pictures - tried)


def activation_bytes(forward: Callable[[], Tensor], parameters: Sequence[Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, on any device.

    Args:
        forward: computes the loss of one micro batch.
        parameters: of the model; what is kept of these is not counted, they are there anyway.

    Returns:
        The sum over all tensors that autograd saved, each stretch of memory once.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()  # held on to: addresses are unique only while all saved tensors live
    total = sum(kept.values())
    del loss
    return total


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
