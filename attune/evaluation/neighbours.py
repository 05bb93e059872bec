"""Weighted k-nearest-neighbour classification: how well like pictures lie together, with nothing trained."""

import logging
import math

import numpy as np

from attune.errors import EvaluationError
from attune.evaluation.classification import check_targets
from attune.evaluation.embeddings import checked
from attune.evaluation.top_k import top_k

_log = logging.getLogger(__name__)


def neighbours(
    train: np.ndarray,
    train_targets: np.ndarray,
    queries: np.ndarray,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: str = "cpu",
) -> np.ndarray:
    """Each class's share in the votes of the k training pictures nearest to a query: float32 (queries, classes).

    A neighbour votes for its class with weight exp(cosine / temperature), as in Wu et al. 2018, Unsupervised Feature
    Learning via Non-Parametric Instance Discrimination, section 3.4, and in DINO. The weights are divided by their sum,
    which changes no order. Classes without a vote have 0, so they tie.

    Args:
        train: unit-length embeddings, float32 (train, dim).
        train_targets: their classes, int64 (train,).
        queries: unit-length embeddings, float32 (queries, dim).
        classes: number of classes.
        k: neighbours; where there are fewer training pictures all of them vote, and the log says so.
        temperature: above 0; the smaller, the more the nearest count.
        device: torch device that finds the neighbours.

    Raises:
        DataError: if there are no training pictures, or their targets are not a class for each of them.
        EvaluationError: if the temperature is not above 0, an embedding is no number, or they are otherwise not as
            `attune.evaluation.embeddings.checked` wants them.

    Example:
        Neighbours of cosine 0.9 (class 0), 0.9 and 0.83 (class 1) vote with e^0, e^0 and e^-1 times one number: class 0 has
        1 / 2.368 = 0.422.
    """
    check_targets(train_targets, len(train), classes)
    if not 0 < temperature < math.inf:
        raise EvaluationError(
            f"temperature = {temperature}: votes are weighed by exp(cosine / temperature). Use one above 0"
        )
    train, queries = checked(broken=False, train=train, queries=queries)
    if k > len(train):
        _log.warning("k = %d neighbours, but there are only %d training items: all of them vote", k, len(train))
    cosines, nearest = top_k(queries, train, min(k, len(train)), device=device)
    weights = np.exp((cosines.astype(np.float64) - cosines[:, :1]) / temperature)  # the nearest, in column 0, weighs 1
    cells = np.arange(len(queries))[:, None] * classes + train_targets[nearest]
    votes = np.bincount(cells.ravel(), weights.ravel(), len(queries) * classes).reshape(len(queries), classes)
    shares: np.ndarray = (votes / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
