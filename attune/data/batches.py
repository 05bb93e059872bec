"""Which rows meet in a batch."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def epoch_batches(groups: Sequence[str], batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One pass over the rows in random batches, of equal size, in which no group appears twice.

    Every other row of a batch is a negative, so two rows of one group must not meet. The rows are laid out group by
    group in random order and dealt like cards to the batches: a group's rows land in different batches. A group with
    more rows than there are batches sends a random choice of them, as many as there are batches.

    Args:
        groups: one name per row.
        batch_size: the most rows in a batch, at least 2.
        rng: source of the order.

    Returns:
        Int64 arrays of row numbers; sizes differ by at most one.

    Example:
        Rows 0 and 1 share a group; with `batch_size=2` two batches such as `[0, 2]` and `[3, 1]` come out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    count = max(1, -(-len(groups) // batch_size))
    names = list(members)
    deck: list[int] = []
    for index in rng.permutation(len(names)):
        rows = members[names[index]]
        deck += [rows[i] for i in rng.permutation(len(rows))[:count]]
    return [np.asarray(deck[start::count], dtype=np.int64) for start in range(count)]
