"""Exact ranks of right answers among all answers, without the matrix of all scores.

The ranks of given embeddings are those of exact arithmetic, with any number of threads and in pieces of any size.
Products of float32 numbers are rounded differently by each of these, so scores that float32 may not tell apart are
computed again in float64; among unlike embeddings these are few.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle

import numpy as np
import torch

ROUNDING = 2.0**-24
"""Of one float32 operation. A product of unit vectors is off by no more than this times their length, in whatever order it
is summed (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1)."""

TIED = 1e-12
"""Float64 products that are nearer than this are equal: the same bound, of 2 ** -53, is smaller up to 9,000 numbers."""

TILE = 4_000_000
"""Scores in a tile: 16 MB."""

WIDEST = 8192
"""Columns of a tile."""

FEW = 32
"""Doubtful scores of a line up to which they are computed one by one, and not the line as a whole."""

NOWHERE = -3.0  # below every cosine: where a tile's right answers are taken out


def ranks(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> dict[str, np.ndarray]:
    """The rank of the best right answer of each query, in both directions, from one product.

    Ties count against the model: a rank is one more than the number of wrong answers that score at least as high. So a
    model that embeds everything alike scores nothing. Beside the embeddings it holds two tiles of scores.

    Args:
        images: unit-length embeddings, float32 (images, dim).
        texts: unit-length embeddings, float32 (texts, dim).
        image_of_text: for each text the row of the picture it describes, int64 (texts,). Each picture has at least one.

    Returns:
        ``text_to_image``: ranks from 1, int64 (texts,); ``image_to_text``: int64 (images,). Embeddings that are no numbers
        are last as queries, and as answers they count against the model.
    """
    exact = _products(texts, images, np.arange(len(texts)), image_of_text)
    best = np.full(len(images), -np.inf)  # of each picture's own texts
    with np.errstate(invalid="ignore"):  # what is no number stays so, without a warning
        np.maximum.at(best, image_of_text, exact)
    to_image, to_text = _Side(texts, images, exact, axis=1), _Side(images, texts, best, axis=0)

    def count(scores: np.ndarray, rows: slice, columns: slice) -> None:
        own = image_of_text[rows] - columns.start
        inside = np.flatnonzero((own >= 0) & (own < columns.stop - columns.start))
        scores[inside, own[inside]] = NOWHERE
        to_image.count(scores, rows, columns)
        to_text.count(scores, columns, rows)

    with ThreadPoolExecutor(1) as pool:  # one tile is counted while the next is computed
        counting: list[Future[None]] = []
        for tile in tiles(texts, images):
            counting.append(pool.submit(count, *tile))
            if len(counting) > 1:
                counting.pop(0).result()
        for rest in counting:
            rest.result()
    own_texts = np.bincount(image_of_text, minlength=len(images))
    return {"text_to_image": to_image.ranks(1), "image_to_text": to_text.ranks(own_texts)}


def tiles(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, slice, slice]]:
    """Scores of some rows of both, and which; a tile is good until the one after the next is asked for."""
    width = min(len(right), WIDEST)
    height = max(1, TILE // width)
    buffers = cycle([torch.empty(height * width) for _ in range(2)])
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        for start in range(0, len(right), width):
            columns = slice(start, min(start + width, len(right)))
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            tile = next(buffers)[: shape[0] * shape[1]].view(shape)
            torch.mm(torch.from_numpy(left[rows]), torch.from_numpy(right[columns]).T, out=tile)
            yield tile.numpy(), rows, columns


class _Side:
    """One direction: how many wrong answers score at least as high as the best right one, query by query.

    Args:
        queries: embeddings (queries, dim).
        answers: embeddings (answers, dim).
        right: exact score of each query's best right answer, float64 (queries,).
        axis: of a tile along which the answers lie.
    """

    def __init__(self, queries: np.ndarray, answers: np.ndarray, right: np.ndarray, axis: int) -> None:
        self.queries, self.answers, self.right, self.axis = queries, answers, right, axis
        self.margin = (queries.shape[1] + 8) * ROUNDING  # 8: the vectors' own lengths, and the bounds, are rounded too
        self.not_below = np.zeros(len(queries), dtype=np.int64)

    def count(self, scores: np.ndarray, lines: slice, others: slice) -> None:
        """Takes in a tile of scores whose right pairs are `NOWHERE`."""
        low, high = (bound[:, None] if self.axis == 1 else bound for bound in self._bounds(self.right[lines]))
        # What is below, and not what is above: a score that is no number must not pass for a win.
        below = _count(scores < low, self.axis)
        doubtful = _count(scores <= high, self.axis) - below
        self.not_below[lines] += scores.shape[self.axis] - below
        for many, chosen in ((False, (doubtful > 0) & (doubtful <= FEW)), (True, doubtful > FEW)):
            if chosen.any():
                self._settle(scores, lines, others, np.flatnonzero(chosen), many)

    def ranks(self, own: np.ndarray | int) -> np.ndarray:
        """What was found, once all tiles were counted; `own` is how many right answers each query has."""
        # Right answers stood below all scores, except where the right score is no number: nothing is below that.
        return np.asarray(1 + self.not_below - np.where(np.isnan(self.right), own, 0))

    def _settle(self, scores: np.ndarray, lines: slice, others: slice, chosen: np.ndarray, many: bool) -> None:
        """Computes doubtful scores of some lines anew, and takes off those that are below after all."""
        band = scores[chosen] if self.axis == 1 else scores[:, chosen].T
        rows = lines.start + chosen
        low, high = self._bounds(self.right[rows])
        line, other = np.nonzero((band >= low[:, None]) & (band <= high[:, None]))
        if many:
            found = (self.queries[rows].astype(np.float64) @ self.answers[others].astype(np.float64).T)[line, other]
        else:
            found = _products(self.queries, self.answers, rows[line], others.start + other)
        self.not_below[rows] -= np.bincount(line[found < self.right[rows][line] - TIED], minlength=len(rows))

    def _bounds(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between which scores in float32 are in doubt."""
        return (right - self.margin).astype(np.float32), (right + self.margin).astype(np.float32)


def _products(queries: np.ndarray, answers: np.ndarray, query: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Exact scores of some pairs, float64 (pairs,)."""
    found = np.empty(len(query))
    for start in range(0, len(query), 4096):
        part = slice(start, start + 4096)
        found[part] = (queries[query[part]].astype(np.float64) * answers[answer[part]]).sum(axis=1)
    return found


def _count(flags: np.ndarray, axis: int) -> np.ndarray:
    """True values of each line, int64. Sums of single bytes take a fraction of the time that `flags.sum(axis)` does."""
    if axis == 1:
        return np.array([np.count_nonzero(row) for row in flags], dtype=np.int64)
    blocks = [flags[start : start + 255].view(np.uint8).sum(axis=0, dtype=np.uint8) for start in range(0, len(flags), 255)]
    counted: np.ndarray = np.stack(blocks).sum(axis=0, dtype=np.int64)
    return counted
