"""How much of the difference between two candidates on one validation part may be chance."""

import math

import numpy as np
import torch
from torch import Tensor

from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement, queries_of
from attune.metrics import KS
from attune.training.position import Candidate

DEVIATIONS = 1.96
"""Standard errors that a mean is from the truth in 95 of 100 cases at most."""


def of_items(measurement: Measurement, pairs: Pairs) -> Tensor | None:
    """What each item adds to the figure that candidates are chosen by, which is the mean of these: float32 (items,).

    An item's captions count together, as they are not independent. Of single items only those that have a right answer are
    there. None of captions with scores, whose correlation is no mean.

    Args:
        measurement: of the pairs.
        pairs: of the validation part.
    """
    if pairs.is_graded:
        return None
    if measurement.at_r is not None:
        return torch.from_numpy(measurement.at_r).float()
    owners, directions = queries_of(pairs), []
    for direction, ranks in measurement.ranks.items():
        hits = np.mean([ranks <= k for k in KS], axis=0)
        directions.append(np.bincount(owners[direction], hits, len(pairs)) * len(pairs) / len(hits))
    return torch.from_numpy(np.mean(directions, axis=0)).float()


def is_clearly_behind(one: Candidate, highest: Candidate) -> bool:
    """Whether a candidate is worse than the highest by more than chance, or that cannot be told.

    What both found for the same items is compared: where they hardly differ, little is clear already. If another figure
    than mean recall was asked for, what is lower is behind.
    """
    if one.figure is not None or one.of_items is None or highest.of_items is None:
        return True
    difference = highest.of_items - one.of_items
    if len(difference) < 2:
        return True
    return difference.mean().item() > DEVIATIONS * difference.std().item() / math.sqrt(len(difference))
