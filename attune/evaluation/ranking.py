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
from torch import Tensor

from attune.errors import EvaluationError
from attune.evaluation.embeddings import LENGTH, checked

ROUNDING = 2.0**-24
"""Of one float32 operation. A product of unit vectors is off by no more than this times their length, in whatever order it
is summed (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1)."""

TIED = 1e-12
"""Float64 products that are nearer than this are equal: the same bound, of 2 ** -53, is smaller up to 9,000 numbers."""

TILE = 4_000_000
"""Scores in a tile: 16 MB."""

WIDEST = 8192
"""Columns of a tile."""

FEW = 200
"""Doubtful scores a line up to which they are computed one by one, and not the lines as a whole."""

NOWHERE = -3.0  # below every cosine: where a tile's right answers are taken out
NO_NUMBER = -2.0  # what the score of a right answer counts as when it is no number: below every cosine too


def ranks(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> dict[str, np.ndarray]:
    """The rank of the best right answer of each query, in both directions, from one product.

    Ties count against the model: a rank is one more than the number of wrong answers that score at least as high. So a
    model that embeds everything alike scores nothing. Beside the embeddings it holds two tiles of scores.

    Args:
        images: unit-length embeddings, float32 (images, dim); of other numbers the nearest float32 is taken.
        texts: unit-length embeddings, float32 (texts, dim).
        image_of_text: for each text the row of the picture it describes, int64 (texts,). Each picture has at least one.

    Returns:
        ``text_to_image``: ranks from 1, int64 (texts,); ``image_to_text``: int64 (images,). Embeddings that are no numbers
        are last as queries, and as answers they count against the model.

    Raises:
        EvaluationError: if embeddings are not as `attune.evaluation.embeddings.checked` wants them, a text's picture is none
            of them, or a picture has no text.
    """
    images, texts = checked(images=images, texts=texts)
    image_of_text = _owners(image_of_text, len(images), len(texts))
    exact = exact_scores(texts, images, np.arange(len(texts)), image_of_text)
    best = np.full(len(images), np.nan)  # of each picture's own texts
    with np.errstate(invalid="ignore"):  # what is no number stays so, without a warning
        np.fmax.at(best, image_of_text, exact)
    to_image, to_text = _Side(texts, images, exact, axis=1), _Side(images, texts, best, axis=0)

    def count(tile: Tensor, rows: slice, columns: slice) -> None:
        scores = tile.numpy()
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


def tiles(
    left: np.ndarray, right: np.ndarray, device: str = "cpu", size: int | None = None
) -> Iterator[tuple[Tensor, slice, slice]]:
    """Scores of some rows of both, and which; a tile is good until the one after the next is asked for.

    Args:
        left: embeddings, float32 (left, dim). All of `right` are gone through before its next rows come.
        right: embeddings, float32 (right, dim).
        device: where the tiles are computed and lie.
        size: scores in a tile; `TILE` if not given.
    """
    width = min(len(right), WIDEST)
    height = max(1, (size or TILE) // width)
    a, b = (torch.from_numpy(each).to(device) for each in (left, right))
    buffers = cycle([torch.empty(height * width, device=device) for _ in range(2)])
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        for start in range(0, len(right), width):
            columns = slice(start, min(start + width, len(right)))
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            tile = next(buffers)[: shape[0] * shape[1]].view(shape)
            _multiply(a[rows], b[columns], tile)
            yield tile, rows, columns


def margin(dim: int) -> float:
    """By how much a float32 product of two unit vectors of `dim` numbers may be off."""
    return (1 + LENGTH) ** 2 * (dim + 8) * ROUNDING  # 8: the bounds are rounded too


def exact_scores(queries: np.ndarray, answers: np.ndarray, query: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Exact scores of some pairs, one by one: float64 (pairs,)."""
    found = np.empty(len(query))
    for start in range(0, len(query), 512):
        part = slice(start, start + 512)
        found[part] = (queries[query[part]].astype(np.float64) * answers[answer[part]]).sum(axis=1)
    return found


def exact_scores_within(queries: np.ndarray, answers: np.ndarray, query: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The same for pairs of one tile: by a product of whole lines where there are many pairs to a line."""
    lines, line = np.unique(query, return_inverse=True)
    if len(query) <= FEW * len(lines):
        return exact_scores(queries, answers, query, answer)
    columns = slice(answer.min(), answer.max() + 1)
    whole = queries[lines].astype(np.float64) @ answers[columns].astype(np.float64).T
    return np.asarray(whole[line, answer - columns.start])


def _owners(image_of_text: np.ndarray, images: int, texts: int) -> np.ndarray:
    """The row of each text's picture, int64 (texts,), if all are there and each picture has one."""
    owner = np.asarray(image_of_text)
    if owner.dtype.kind not in "iu" or owner.shape != (texts,):
        raise EvaluationError(
            f"image_of_text must be a picture's row for each of the {texts} texts, but it is {owner.dtype} of shape "
            f"{owner.shape}. Give int64 ({texts},)"
        )
    outside = np.flatnonzero((owner < 0) | (owner >= images))
    if len(outside):
        raise EvaluationError(
            f"image_of_text: {len(outside)} of {texts} texts are of no picture; the first, text {outside[0]}, is of row "
            f"{owner[outside[0]]}. Pictures have the rows 0 to {images - 1}"
        )
    owner = owner.astype(np.int64, copy=False)
    without = np.flatnonzero(np.bincount(owner, minlength=images) == 0)
    if len(without):
        raise EvaluationError(
            f"image_of_text: {len(without)} of {images} pictures have no text; the first is row {without[0]}. Leave them "
            "out, or use `attune.evaluation.places`, where a query may have no right answer"
        )
    return owner


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
        self.margin = margin(queries.shape[1])
        self.not_below = np.zeros(len(queries), dtype=np.int64)

    def count(self, scores: np.ndarray, lines: slice, others: slice) -> None:
        """Takes in a tile of scores whose right pairs are `NOWHERE`."""
        low, high = (bound[:, None] if self.axis == 1 else bound for bound in self._bounds(self.right[lines]))
        # What is below, and not what is above: a score that is no number must not pass for a win.
        below = _count(scores < low, self.axis)
        doubtful = _count(scores <= high, self.axis) - below
        self.not_below[lines] += scores.shape[self.axis] - below
        if doubtful.any():
            self._settle(scores, lines, others, np.flatnonzero(doubtful))

    def ranks(self, own: np.ndarray | int) -> np.ndarray:
        """What was found, once all tiles were counted; `own` is how many right answers each query has."""
        # Right answers stood below all scores, except where the right score is no number: nothing is below that.
        return np.asarray(1 + self.not_below - np.where(np.isnan(self.right), own, 0))

    def _settle(self, scores: np.ndarray, lines: slice, others: slice, chosen: np.ndarray) -> None:
        """Computes doubtful scores of some lines anew, and takes off those that are below after all."""
        band = scores[chosen] if self.axis == 1 else scores[:, chosen].T
        rows = lines.start + chosen
        low, high = self._bounds(self.right[rows])
        line, other = np.nonzero((band >= low[:, None]) & (band <= high[:, None]))
        found = exact_scores_within(self.queries, self.answers, rows[line], others.start + other)
        self.not_below[rows] -= np.bincount(line[found < self.right[rows][line] - TIED], minlength=len(rows))

    def _bounds(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between which scores in float32 are in doubt."""
        return (right - self.margin).astype(np.float32), (right + self.margin).astype(np.float32)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """In float32 throughout, whatever the program allows elsewhere: `margin` is that of nothing less."""
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.mm(left, right.T, out=out)
    torch.set_float32_matmul_precision(allowed)


def _count(flags: np.ndarray, axis: int) -> np.ndarray:
    """True values of each line, int64. Sums of single bytes take a fraction of the time that `flags.sum(axis)` does."""
    if axis == 1:
        return np.array([np.count_nonzero(row) for row in flags], dtype=np.int64)
    blocks = [flags[start : start + 255].view(np.uint8).sum(axis=0, dtype=np.uint8) for start in range(0, len(flags), 255)]
    counted: np.ndarray = np.stack(blocks).sum(axis=0, dtype=np.int64)
    return counted
