"""How the learning rate goes after warm-up, by the scheduler's name.

The names and shapes are those of Hugging Face's `transformers.optimization`, which Jina Finetuner took over.
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class Shape(NamedTuple):
    """What may be changed of a scheduler's shape.

    Attributes:
        cycles: waves of the cosine, or runs of it that each begin at the peak.
        power: of the polynomial.
    """

    cycles: float
    power: float


SHARES: dict[str, Callable[[float, Shape], float]] = {
    "cosine": lambda done, shape: 0.5 * (1 + math.cos(2 * math.pi * shape.cycles * done)),
    "cosine_with_restarts": lambda done, shape: (
        0.5 * (1 + math.cos(math.pi * (shape.cycles * done % 1))) if done < 1 else 0.0
    ),
    "linear": lambda done, _: 1 - done,
    "polynomial": lambda done, shape: (1 - done) ** shape.power,
    "constant": lambda *_: 1.0,
    "constant_with_warmup": lambda *_: 1.0,
}
"""The share of the peak rate (0 to 1) by the share of the steps after warm-up that is done (0 to 1)."""

CYCLES = {"cosine": 0.5, "cosine_with_restarts": 2.0}
"""What they are by default: half a wave, from the peak to nothing; two runs."""

POWER = 2.0
"""1 would be `linear`."""
