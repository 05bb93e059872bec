"""The exact place of every right answer among all answers, without the matrix of all scores.

The places of given embeddings are those of exact arithmetic, as in `attune.evaluation.ranking`: a float32 product in
tiles, and what float32 may not tell apart computed again in float64. They depend neither on threads, nor on the device
of the product, nor on the size of the tiles. `attune.evaluation.ranking.ranks` gives the best place of each query, of
both directions at once.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from attune.errors import DataError
from attune.evaluation.embeddings import checked
from attune.evaluation.ranking import NO_NUMBER, NOWHERE, TIED, exact_scores, exact_scores_within, margin, tiles
from attune.evaluation.relevance import Relevance, counted_out

TILE = 2_000_000
"""Scores in a tile: 8 MB. Twenty times that is held for a moment where most wrong answers are before a right one."""

APART = 8.0
"""Each query's scores are moved up by this, so that one sorted list holds the right scores of many queries."""


@dataclass(frozen=True)
class Places:
    """Where the right answers of all queries stand.

    Attributes:
        relevance: which answers are right.
        rank: place of each of its pairs, from 1, int64 (pairs,).
        tied: bool (queries,): a wrong answer scores exactly as high as one of the right ones.
        gallery: answers that each query is compared with.
    """

    relevance: Relevance
    rank: np.ndarray
    tied: np.ndarray
    gallery: int

    @cached_property
    def right(self) -> np.ndarray:
        """How many right answers each query has, int64 (queries,)."""
        return np.bincount(self.relevance.query, minlength=self.relevance.queries)

    @cached_property
    def best(self) -> np.ndarray:
        """Place of each query's best right answer, float64 (queries,); infinite where there is none."""
        found = np.full(self.relevance.queries, np.inf)
        np.minimum.at(found, self.relevance.query, self.rank)
        return found

    @cached_property
    def nth(self) -> np.ndarray:
        """Which of its query's right answers each pair is, by place, from 1: int64 (pairs,)."""
        found = np.empty(len(self.rank), dtype=np.int64)
        found[np.lexsort((self.rank, self.relevance.query))] = counted_out(self.right) + 1
        return found


def places(
    queries: np.ndarray, answers: np.ndarray, relevance: Relevance, exclude_self: bool = False, device: str = "cpu"
) -> Places:
    """Ranks every right answer of every query among all answers; ties count against the model.

    A wrong answer stands before every right one that it scores as high as. Of right answers that score alike, the one
    with the lower grade stands first, then the one with the lower row. Beside the embeddings it holds the pairs and some
    tiles.

    Args:
        queries: unit-length embeddings, float32 (queries, dim).
        answers: unit-length embeddings, float32 (answers, dim).
        relevance: which answers are right for which queries.
        exclude_self: queries and answers are the same items, and item i is no answer to query i.
        device: of torch; where the product is computed and compared.

    Returns:
        A place for each pair. A query that is no number (NaN) has its right answers after all others; an answer that is
        no number stands before all others where it is wrong, and after them where it is right. Neither is a tie.

    Raises:
        DataError: if there are not as many embeddings as `relevance` says, or if an item is right for itself although
            `exclude_self` leaves it out.
        EvaluationError: if embeddings are not as `attune.evaluation.embeddings.checked` wants them.

    Example:
        A query scores its answers 0.9 (wrong), 0.8 (right), 0.5 (right) and 0.5 (wrong): the places are 2 and 4, since the
        wrong one of the two last stands first, and the query is tied.
    """
    queries, answers = checked(queries=queries, answers=answers)
    _check(queries, answers, relevance, exclude_self)
    asked, line = np.unique(relevance.query, return_inverse=True)  # queries without a right answer are left out
    counts = np.bincount(line)
    ends = np.cumsum(counts)
    starts = ends - counts
    score = np.nan_to_num(exact_scores(queries, answers, relevance.query, relevance.answer), nan=NO_NUMBER)
    by_score = np.lexsort((score, line))  # each query's right answers, from the lowest score
    right = score[by_score]

    reached = np.zeros(len(right), dtype=np.int64)  # wrong answers, by the best of the right ones that they stand before
    tied = np.zeros(relevance.queries, dtype=np.bool_)
    some = queries if len(asked) == len(queries) else queries[asked]
    for tile, rows, columns in tiles(some, answers, device, TILE):
        pairs = slice(starts[rows.start], ends[rows.stop - 1])
        inside = (relevance.answer[pairs] >= columns.start) & (relevance.answer[pairs] < columns.stop)
        take_out(tile, line[pairs][inside] - rows.start, relevance.answer[pairs][inside] - columns.start)
        if exclude_self:
            own = np.flatnonzero((asked[rows] >= columns.start) & (asked[rows] < columns.stop))
            take_out(tile, own, asked[rows][own] - columns.start)
        before, row, column, first, last = _compare(tile, right[pairs], counts[rows], margin(queries.shape[1]))
        reached[pairs] += before
        if len(row):
            found = exact_scores_within(some, answers, rows.start + row, columns.start + column)
            slot = _search(right[pairs], found + TIED, first, last)  # how many right scores it reaches
            counted = slot > starts[rows][row] - pairs.start
            reached[pairs] += np.bincount(slot[counted] - 1, minlength=len(before))
            alike = right[pairs][slot[counted] - 1] >= found[counted] - TIED
            tied[asked[rows][row[counted][alike]]] = True

    up_to = np.cumsum(reached)
    wrong = up_to[ends - 1][line] - up_to + reached
    rank = np.empty(len(right), dtype=np.int64)
    rank[_lower_grade_first(by_score, line, right, relevance.grade)] = ends[line] - np.arange(len(right)) + wrong
    return Places(relevance, rank, tied, len(answers) - exclude_self)


def take_out(tile: Tensor, row: np.ndarray, column: np.ndarray) -> None:
    """Puts some scores of a tile below all others."""
    tile[torch.from_numpy(row).to(tile.device), torch.from_numpy(column).to(tile.device)] = NOWHERE


def tied_groups(line: np.ndarray, score: np.ndarray) -> np.ndarray:
    """A number for each score, equal for neighbours that tie: int64, for exact scores in order, line by line."""
    new = (np.diff(line) != 0) | (np.abs(np.diff(score)) > TIED)
    return np.concatenate([[0], np.cumsum(new)])


def passing(scores: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of a tile's scores that are not below their row's bar; what is no number is not below."""
    flat = (~(scores < bar[:, None])).view(-1).nonzero().view(-1)
    row = flat.div(scores.shape[1], rounding_mode="floor")
    return row, flat - row * scores.shape[1]


def _check(queries: np.ndarray, answers: np.ndarray, relevance: Relevance, exclude_self: bool) -> None:
    if (len(queries), len(answers)) != (relevance.queries, relevance.answers):
        raise DataError(
            f"there are embeddings of {len(queries)} queries and {len(answers)} answers, but relevance is of "
            f"{relevance.queries} and {relevance.answers}. Give those of the same items, in the same order"
        )
    own = np.flatnonzero(relevance.query == relevance.answer)
    if exclude_self and (len(queries) != len(answers) or len(own)):
        raise DataError(
            f"exclude_self is for items searched among themselves: there are {len(queries)} queries, {len(answers)} answers "
            f"and {len(own)} items that are right for themselves. Use one set of items and pairs of different ones"
        )


def _compare(
    tile: Tensor, right: np.ndarray, counts: np.ndarray, doubt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compares a tile's wrong answers with the right scores of its rows, as far as float32 can tell.

    Args:
        tile: scores (rows, columns), with those that are no wrong answers at `NOWHERE`.
        right: exact scores of right answers, from the lowest, row by row: float64 (pairs,).
        counts: how many each row has, int64 (rows,), at least 1.
        doubt: by how much a score of the tile may be off.

    Returns:
        Wrong answers by the best right one they stand before, int64 (pairs,); then of each doubtful score: row, column,
        how many of the right scores it reaches for certain, and how many at most, counted from the first of all.
    """
    keys = torch.from_numpy(right + APART * np.repeat(np.arange(len(counts)), counts)).to(tile.device)
    first_of_row = np.cumsum(counts) - counts
    starts, lowest = (torch.from_numpy(each).to(tile.device) for each in (first_of_row, right[first_of_row]))
    row, column = passing(tile, (lowest - doubt).float())
    score = tile[row, column].double().nan_to_num(-NO_NUMBER).clamp(NO_NUMBER, -NO_NUMBER) + APART * row
    first = torch.searchsorted(keys, score - doubt, right=True)
    certain = torch.cat([keys, keys.new_tensor([torch.inf])])[first] > score + doubt  # the next one is out of reach
    counted = first[certain & (first > starts[row])]
    before = torch.bincount(counted - 1, minlength=len(right)).cpu().numpy()
    last = torch.searchsorted(keys, score[~certain] + doubt, right=True)
    doubtful_row, doubtful_column, reached = (each[~certain].cpu().numpy() for each in (row, column, first))
    return before, doubtful_row, doubtful_column, reached, last.cpu().numpy()


def _search(ordered: np.ndarray, value: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How many numbers of an ordered list are not above each value, where it is known to be from `first` to `last`."""
    while (first < last).any():
        middle = (first + last) // 2
        up = (first < last) & (ordered[np.minimum(middle, len(ordered) - 1)] <= value)
        first, last = np.where(up, middle + 1, first), np.where(up, last, middle)
    return first


def _lower_grade_first(by_score: np.ndarray, line: np.ndarray, right: np.ndarray, grade: np.ndarray) -> np.ndarray:
    """The same order from the lowest score, but of equal scores the highest grade comes first, to get the last place."""
    return by_score[np.lexsort((-by_score, -grade[by_score], tied_groups(line, right)))]
