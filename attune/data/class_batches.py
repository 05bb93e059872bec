"""Batches in which several pictures of each class meet."""

from collections.abc import Sequence

import numpy as np

from attune.data.batches import members_of, number_of_batches


def class_batches(labels: Sequence[str], batch_size: int, items: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One pass over the rows in random batches of some classes with up to `items` rows of each (P x K sampling).

    Each row comes once. A class's rows are cut into lots of `items`, the last one may be smaller, as are those of classes
    that have fewer rows; lots are dealt like cards to the batches, those of a class to different ones as far as there are
    as many.

    Args:
        labels: class of each row.
        batch_size: about how many rows are in a batch, at least 2.
        items: rows of a class in a batch, at least 2.
        rng: source of the order.

    Returns:
        Int64 arrays of row numbers, in random order; as many as `attune.data.batches.epoch_batches` gives.

    Example:
        Six rows with the labels a a a a b b, `batch_size=4` and `items=2`: batches such as `[3, 0, 5, 4]` and `[2, 1]`.
    """
    items = min(items, batch_size)  # else there could be fewer lots than batches
    members = members_of(labels)
    names = list(members)
    lots = []
    for index in rng.permutation(len(names)):
        rows = rng.permutation(members[names[index]])
        lots += [rows[start : start + items] for start in range(0, len(rows), items)]
    batches: list[list[np.ndarray]] = [[] for _ in range(number_of_batches(len(labels), batch_size))]
    sizes = np.zeros(len(batches), dtype=np.int64)
    for place, lot in enumerate(lots):
        # The emptiest one, and of several the next in turn, so that a class's lots part.
        turn = (place + np.arange(len(batches))) % len(batches)
        chosen = turn[np.argmin(sizes[turn])]
        batches[chosen].append(lot)
        sizes[chosen] += len(lot)
    return [rng.permutation(np.concatenate(batch)) for batch in batches]
