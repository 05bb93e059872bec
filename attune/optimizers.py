"""torch's optimizers by their class names, and what a run has to know of each before torch is loaded."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from attune.choices import one_of


class Kind(NamedTuple):
    """What is known of an optimizer.

    Attributes:
        moments: numbers it keeps for each weight, at its default options and at least.
        adam_like: each step is about as long as the learning rate, whatever the gradient's size: the automatic rate fits.
        weight_decay: what `auto` is. Only where decay is apart from the gradient is CLIP's 0.1 what it is for AdamW. None
            where there is no weight decay.
        options: those of ours that differ from torch's.
    """

    moments: int
    adam_like: bool = False
    weight_decay: float | None = 0.0
    options: Mapping[str, Any] = MappingProxyType({})


CLIP = {"betas": (0.9, 0.98), "eps": 1e-6}
"""CLIP's own (Radford et al. 2021, table 18); an eps of 1e-6 keeps steps small where gradients are tiny."""

OPTIMIZERS = {
    "AdamW": Kind(2, True, 0.1, CLIP),
    "Adam": Kind(2, True, 0.0, CLIP),
    "NAdam": Kind(2, True, 0.0, CLIP),
    "RAdam": Kind(2, True, 0.0, CLIP),
    "Adamax": Kind(2, True),
    "Adafactor": Kind(0, weight_decay=0.1),
    "Adagrad": Kind(1),
    "Adadelta": Kind(2),
    "RMSprop": Kind(1),
    "Rprop": Kind(2, weight_decay=None),
    "SGD": Kind(0),
    "ASGD": Kind(1),
}

NOT_FOR_TRAINING = {
    "LBFGS": "computes the loss of one batch many times a step",
    "Muon": "takes matrices alone, and models have vectors as well",
    "SparseAdam": "takes sparse gradients, and these models have none",
}
"""torch's others, and why they are refused."""


def check_optimizer(name: str) -> str:
    """The name itself, if it is one of `OPTIMIZERS`.

    Raises:
        ValueError: if it is not, with those that are.
    """
    if name in NOT_FOR_TRAINING:
        raise ValueError(f"{NOT_FOR_TRAINING[name]}. Use one of: {', '.join(OPTIMIZERS)}")
    return one_of(name, tuple(OPTIMIZERS))
