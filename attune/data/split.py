"""Splits by group, never by row: five captions of one picture, or all variants of one thing, stay together."""

import hashlib
from collections.abc import Sequence

import numpy as np

from attune.errors import DataError


def split_by_group(
    groups: Sequence[str], fraction: float, seed: int, items: str = "pictures"
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers that stay and row numbers that are held out.

    Groups are ordered by a hash of their name and the seed and the first ones are held out, so the order of the rows
    does not matter and data added later moves few groups across. At least two groups end up on either side.

    Args:
        groups: one name per row.
        fraction: share of the groups to hold out, above 0 and below 1.
        seed: another seed holds out other groups.
        items: what the rows are, for the message.

    Returns:
        Two ascending int64 arrays, of the rows kept and the rows held out.

    Raises:
        DataError: if there are fewer than four groups.
    """
    names = sorted(set(groups))
    if len(names) < 4:
        raise DataError(
            f"There are only {len(names)} distinct {items} (groups), too few to hold any out. "
            "At least 4 are needed to split once; a useful fine-tune needs a few hundred"
        )
    count = min(max(2, round(len(names) * fraction)), len(names) - 2)
    held_out = set(sorted(names, key=lambda name: _hash(name, seed))[:count])
    mask = np.fromiter((group in held_out for group in groups), dtype=bool, count=len(groups))
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
