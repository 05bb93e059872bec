"""Exact ranks of right answers among all answers, without the matrix of all scores.

A rank is that of exact arithmetic: the same on every machine, with any number of threads and in pieces of any size.
Products of float32 embeddings are rounded differently by each of these, so scores that float32 cannot tell apart are
computed again in float64; among unlike embeddings these are few.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch

SURE = 1e-6
"""Float32 products of unit vectors that are further apart than this are in the order of the exact ones: rounding
errors add up to less than 5e-7 each, at up to 4,096 numbers."""

TIED = 1e-12
"""Float64 products that are nearer than this are equal: theirs are below 1e-15 each."""

TILE = 4_000_000
"""Scores in a tile: 16 MB."""

WIDEST = 8192
"""Columns of a tile."""

FEW = 32
"""Doubtful scores of a line up to which they are computed one by one, and not the line as a whole."""

NOWHERE = -3.0  # below every cosine: where a tile's right answers are taken out


@dataclass(frozen=True)
class Ranking:
    """Where the right answers of some queries stand.

    Attributes:
        query: of each right pair, int64 (pairs,).
        ranks: of each right pair, from 1, int64 (pairs,): one more than the wrong answers that score at least as high
            and the right ones before it. Ties with wrong answers count against the model.
        tied: how many wrong answers score exactly as high, int64 (pairs,).
        queries: how many there are; each has at least one right answer.
    """

    query: np.ndarray
    ranks: np.ndarray
    tied: np.ndarray
    queries: int

    @property
    def first(self) -> np.ndarray:
        """The rank of each query's best right answer, int64 (queries,)."""
        found = np.full(self.queries, np.iinfo(np.int64).max)
        np.minimum.at(found, self.query, self.ranks)
        return found


def ranks(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> dict[str, np.ndarray]:
    """The rank of the best right answer of each query; see `rank_both_ways`.

    Returns:
        ``text_to_image``: int64 (texts,); ``image_to_text``: int64 (images,).
    """
    return {direction: ranking.first for direction, ranking in rank_both_ways(images, texts, image_of_text).items()}


def rank_both_ways(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> dict[str, Ranking]:
    """Ranks of all right pairs, pictures as answers to texts and texts as answers to pictures, from one product.

    Beside the embeddings it holds two tiles of scores and a few numbers a pair.

    Args:
        images: unit-length embeddings, float32 (images, dim).
        texts: unit-length embeddings, float32 (texts, dim).
        image_of_text: for each text the row of the picture it describes, int64 (texts,). Each picture has at least one.

    Returns:
        ``text_to_image`` and ``image_to_text``, pairs in the order of the texts. Embeddings that are no numbers are last.
    """
    text = np.arange(len(texts))
    exact = _products(texts, images, text, image_of_text)
    to_image = _Side(texts, images, text, image_of_text, exact, axis=1)
    to_text = _Side(images, texts, image_of_text, text, exact, axis=0)

    def count(scores: np.ndarray, rows: slice, columns: slice) -> None:
        own = image_of_text[rows] - columns.start
        inside = np.flatnonzero((own >= 0) & (own < columns.stop - columns.start))
        scores[inside, own[inside]] = NOWHERE
        to_image.count(scores, rows, columns)
        to_text.count(scores, columns, rows)

    with ThreadPoolExecutor(1) as pool:  # one tile is counted while the next is computed
        counting: list[Future[None]] = []
        for tile in _tiles(texts, images):
            counting.append(pool.submit(count, *tile))
            if len(counting) > 1:
                counting.pop(0).result()
        for rest in counting:
            rest.result()
    return {"text_to_image": to_image.ranking(), "image_to_text": to_text.ranking()}


def _tiles(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, slice, slice]]:
    """Scores of some rows of both, and which; a tile is good until two more are asked for."""
    width = min(len(right), WIDEST)
    height = max(1, TILE // width)
    buffers = cycle([torch.empty(height * width) for _ in range(3)])
    for top in range(0, len(left), height):
        rows = slice(top, min(top + height, len(left)))
        for start in range(0, len(right), width):
            columns = slice(start, min(start + width, len(right)))
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            tile = next(buffers)[: shape[0] * shape[1]].view(shape)
            torch.mm(torch.from_numpy(left[rows]), torch.from_numpy(right[columns]).T, out=tile)
            yield tile.numpy(), rows, columns


class _Side:
    """One direction: its queries' right pairs, and how many wrong answers were found above each so far.

    Args:
        queries: embeddings (queries, dim).
        answers: embeddings (answers, dim).
        query: of each right pair.
        answer: of each right pair.
        pair: exact score of each right pair, float64.
        axis: of a tile along which the answers lie.
    """

    def __init__(
        self, queries: np.ndarray, answers: np.ndarray, query: np.ndarray, answer: np.ndarray, pair: np.ndarray, axis: int
    ) -> None:
        self.queries, self.answers, self.query, self.axis = queries, answers, query, axis
        # Within each query the best first; rounding, so that equal scores are in the order of their answers.
        order = np.lexsort((answer, -np.round(pair, 12), query))
        counts = np.bincount(query, minlength=len(queries))
        starts = np.cumsum(counts) - counts
        self.place = np.empty(len(pair), dtype=np.int64)
        self.place[order] = np.arange(len(pair)) - starts[query[order]]
        # One column for each place: a query with fewer right answers has none there, which no score is below.
        self.score = np.full((len(queries), counts.max()), -np.inf)
        self.score[query, self.place] = pair
        self.not_below = np.zeros(self.score.shape, dtype=np.int64)
        self.tied = np.zeros(self.score.shape, dtype=np.int64)

    def count(self, scores: np.ndarray, lines: slice, others: slice) -> None:
        """Takes in a tile of scores whose right pairs are `NOWHERE`."""
        for place in range(self.score.shape[1]):
            exact = self.score[lines, place]
            low, high = (bound[:, None] if self.axis == 1 else bound for bound in _bounds(exact))
            # What is below, and not what is above: a score that is no number must not pass for a win.
            below = _count(scores < low, self.axis)
            doubtful = np.where(exact > -np.inf, _count(scores <= high, self.axis) - below, 0)
            self.not_below[lines, place] += scores.shape[self.axis] - below
            for many, chosen in ((False, (doubtful > 0) & (doubtful <= FEW)), (True, doubtful > FEW)):
                if chosen.any():
                    self._settle(scores, lines, others, place, np.flatnonzero(chosen), many)

    def ranking(self) -> Ranking:
        """What was found, once all tiles were counted."""
        own = np.bincount(self.query, minlength=len(self.queries))[:, None]
        # Right answers stood below all scores, but of a pair whose score is no number, which nothing is below.
        above = np.where(np.isnan(self.score), self.not_below - own, self.not_below)
        return Ranking(
            self.query,
            1 + above[self.query, self.place] + self.place,
            self.tied[self.query, self.place],
            len(self.queries),
        )

    def _settle(self, scores: np.ndarray, lines: slice, others: slice, place: int, chosen: np.ndarray, many: bool) -> None:
        """Computes doubtful scores of some lines anew: takes off those that are below, and notes those that are equal."""
        band = scores[chosen] if self.axis == 1 else scores[:, chosen].T
        exact = self.score[lines, place][chosen]
        low, high = _bounds(exact)
        doubtful = (band >= low[:, None]) & (band <= high[:, None])
        rows = lines.start + chosen
        line, other = np.nonzero(doubtful)
        if many:
            found = (self.queries[rows].astype(np.float64) @ self.answers[others].astype(np.float64).T)[line, other]
        else:
            found = _products(self.queries, self.answers, rows[line], others.start + other)
        difference = found - exact[line]
        self.not_below[rows, place] -= np.bincount(line[difference < -TIED], minlength=len(rows))
        self.tied[rows, place] += np.bincount(line[np.abs(difference) <= TIED], minlength=len(rows))


def _bounds(exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which scores in float32 are in doubt."""
    return (exact - SURE).astype(np.float32), (exact + SURE).astype(np.float32)


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
