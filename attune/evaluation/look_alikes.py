"""Held-out single items that are nearly the same and have different labels: one of the labels may well be wrong."""

from collections.abc import Iterator

import numpy as np

from attune.data.duplicates import SAME_COLOUR, mean_colours, near, picture_hashes
from attune.data.pairs import Pairs
from attune.data.words import plain
from attune.evaluation.leakage import SAME_DIRECTION, TILE


def look_alikes(pairs: Pairs, looks: np.ndarray | None = None) -> dict[int, int]:
    """Items that are nearly the same as one with another label.

    They are nearly the same as leaks are: pictures by hash and colour, texts but for case and punctuation, embeddings by
    their direction. Items without a label are left out.

    Args:
        pairs: single items.
        looks: `attune.evaluation.leakage.looks` of them, row by row; None of texts.

    Returns:
        By the row of each such item the first row of those.
    """
    names, codes = np.unique(np.asarray(pairs.labels, dtype=np.str_), return_inverse=True)
    labelled = names[codes] != ""
    found: dict[int, int] = {}
    for rows, others in _alike(pairs, looks):
        kept = (codes[rows] != codes[others]) & labelled[rows] & labelled[others]
        first_rows, first = np.unique(rows[kept], return_index=True)
        found.update(zip(first_rows.tolist(), others[kept][first].tolist(), strict=True))
    return found


def _alike(pairs: Pairs, looks: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that are nearly the same, as two arrays of equal length at a time: all of a row at once, in order."""
    if looks is None:
        known: dict[str, list[int]] = {}
        for row, text in enumerate(pairs.queries):
            known.setdefault(plain(text), []).append(row)
        for rows in (np.asarray(rows) for rows in known.values() if len(rows) > 1):
            yield np.repeat(rows, len(rows)), np.tile(rows, len(rows))
        return
    of_pictures = looks.ndim == 4
    hashes, colours = (picture_hashes(looks), mean_colours(looks)) if of_pictures else (looks, looks)
    height = max(1, TILE // max(1, len(looks)))
    for start in range(0, len(looks), height):
        tile = hashes[start : start + height]
        rows, others = np.nonzero(near(tile, hashes) if of_pictures else tile @ hashes.T >= SAME_DIRECTION)
        rows += start
        if of_pictures:
            same = np.abs(colours[rows] - colours[others]).max(1, initial=0) <= SAME_COLOUR
            rows, others = rows[same], others[same]
        yield rows, others
