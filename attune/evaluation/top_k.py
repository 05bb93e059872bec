"""The best answers to each query, exactly, without the matrix of all scores."""

import numpy as np
import torch
from torch import Tensor

from attune.errors import DataError
from attune.evaluation.embeddings import checked
from attune.evaluation.places import TILE, passing, take_out, tied_groups
from attune.evaluation.ranking import NO_NUMBER, TIED, exact_scores_within, margin, tiles
from attune.evaluation.relevance import counted_out


def top_k(
    queries: np.ndarray, answers: np.ndarray, k: int, exclude_self: bool = False, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k answers that score highest, best first; of equal ones, the one with the lower row.

    No answer is passed over, and what float32 may not tell apart is decided in float64. Once some tiles are through, few
    scores pass the k-th best so far, so there is little to do beside the product.

    Args:
        queries: unit-length embeddings, float32 (queries, dim).
        answers: unit-length embeddings, float32 (answers, dim).
        k: how many answers to give to each query.
        exclude_self: queries and answers are the same items, and item i is no answer to query i.
        device: of torch; where the product is computed and compared.

    Returns:
        Scores, float32 (queries, k), and rows of answers, int64 (queries, k). Scores that are no numbers come last.

    Raises:
        DataError: if there are not k answers to each query, or `exclude_self` is asked for of different items.
        EvaluationError: if embeddings are not as `attune.evaluation.embeddings.checked` wants them.

    Example:
        Of the scores 0.2, 0.9, 0.5 and 0.9, the best three are 0.9, 0.9 and 0.5, in rows 1, 3 and 2.
    """
    queries, answers = checked(queries=queries, answers=answers)
    gallery = len(answers) - exclude_self
    if not 1 <= k <= gallery:
        raise DataError(f"k = {k}, but each query has {gallery} answers to choose from. Use a k from 1 to {gallery}")
    if exclude_self and len(queries) != len(answers):
        raise DataError(
            f"exclude_self is for items searched among themselves, but there are {len(queries)} queries and {len(answers)} "
            "answers. Give the same embeddings twice, or leave exclude_self out"
        )
    scores, indices = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    for tile, rows, columns in tiles(queries, answers, device, TILE):
        if columns.start == 0:
            kept = _Best(rows.stop - rows.start, k)
        if exclude_self:
            own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            take_out(tile, own - rows.start, own - columns.start)
        row, column = kept.candidates(tile, margin(queries.shape[1]))
        if len(row):
            found = exact_scores_within(queries, answers, rows.start + row, columns.start + column)
            kept.add(row, columns.start + column, np.nan_to_num(found, nan=NO_NUMBER))
        if columns.stop == len(answers):
            scores[rows], indices[rows] = kept.score.reshape(-1, k), kept.index.reshape(-1, k)
    return np.where(scores == NO_NUMBER, np.nan, scores).astype(np.float32), indices


class _Best:
    """The best answers so far of some rows: flat, row by row, best first; up to k of each."""

    def __init__(self, rows: int, k: int) -> None:
        self.k = k
        self.row, self.index = (np.empty(0, dtype=np.int64) for _ in range(2))
        self.score = np.empty(0)
        self.bar = np.full(rows, -np.inf)  # the k-th best score; none yet where fewer than k are known

    def candidates(self, tile: Tensor, doubt: float) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of a tile's scores that may be among the best."""
        bar = torch.from_numpy(self.bar).to(tile.device)
        if not len(self.row) and tile.shape[1] >= self.k:
            bar = tile.topk(self.k, dim=1).values[:, -1].double() - doubt
        row, column = passing(tile, (bar - doubt).clamp(min=NO_NUMBER).float())
        return row.cpu().numpy(), column.cpu().numpy()

    def add(self, row: np.ndarray, index: np.ndarray, score: np.ndarray) -> None:
        """Takes in candidates of higher index than all before, with their exact scores."""
        new = score > self.bar[row] + TIED  # of equals the first stays
        row, index, score = (
            np.concatenate(both) for both in ((self.row, row[new]), (self.index, index[new]), (self.score, score[new]))
        )
        by_score = np.lexsort((-score, row))
        order = by_score[np.lexsort((index[by_score], tied_groups(row[by_score], score[by_score])))]
        counts = np.bincount(row, minlength=len(self.bar))
        place = counted_out(counts)
        order = order[place < self.k]
        self.row, self.index, self.score = row[order], index[order], score[order]
        full = np.flatnonzero(counts >= self.k)
        self.bar[full] = self.score[place[place < self.k] == self.k - 1]
