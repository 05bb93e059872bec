"""What all losses of pytorch-metric-learning share here: how they and their miners are asked."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch
from attune.losses.table import Kind

Picked = tuple[Tensor, ...]
"""Pairs as (anchors, positives, anchors, negatives), or triplets as (anchors, positives, negatives): rows and columns."""


class LibraryLoss(nn.Module, ABC):
    """A loss of the library; it has no use for the model's temperature, and trains none.

    Args:
        loss: of the library.
        kind: what is known of it.
        miner: chooses pairs or triplets, for losses that pick; without one, all of the batch count.
    """

    def __init__(self, loss: nn.Module, kind: Kind, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.kind = kind
        self.miner = miner if kind.picks else None

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch; float32 throughout, as mining needs it.

        Raises:
            ValueError: what `compare` cannot use.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            return self.compare(batch.in_float32())

    @property
    def takes_all_triplets(self) -> bool:
        """Whether it is to be given all triplets there are. Left to itself it would look for them among batch x answers²."""
        return self.kind.triplets and getattr(self.loss, "triplets_per_anchor", "all") == "all"

    @abstractmethod
    def compare(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch in float32."""

    def one_way(
        self, queries: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, ignored: Tensor | None = None
    ) -> Tensor:
        """The loss of queries (n, dim) among answers (m, dim), right where labels are equal; `ignored` is bool (n, m)."""
        picked: Picked | None = None
        if self.miner is not None:
            picked = _without(ignored, self.miner(queries.detach(), labels, answers.detach(), answer_labels))
        elif self.takes_all_triplets or (self.kind.picks and ignored is not None):
            right = labels[:, None] == answer_labels
            wrong = ~right if ignored is None else ~right & ~ignored
            pairs = (*right.nonzero(as_tuple=True), *wrong.nonzero(as_tuple=True))
            picked = all_triplets(right, wrong) if self.kind.triplets else pairs
        found: Tensor = self.loss(queries, labels, picked, ref_emb=answers, ref_labels=answer_labels)
        return found


def all_triplets(right: Tensor, wrong: Tensor) -> Picked:
    """Every right answer of a query with every wrong one: rows, right columns and wrong columns, in order.

    Args:
        right: bool (queries, answers).
        wrong: bool (queries, answers).

    Example:
        Of one query with ``right = [[1, 0, 0]]`` and ``wrong = [[0, 1, 1]]``: ``([0, 0], [0, 0], [1, 2])``.
    """
    queries, answers = right.nonzero(as_tuple=True)
    pair, others = wrong[queries].nonzero(as_tuple=True)
    return queries[pair], answers[pair], others


def _without(ignored: Tensor | None, picked: Picked) -> Picked:
    """What a miner chose, without the negatives that are none."""
    if ignored is None:
        return picked
    if len(picked) == 3:
        fair = ~ignored[picked[0], picked[2]]
        return tuple(part[fair] for part in picked)
    anchors, right, others, wrong = picked
    fair = ~ignored[others, wrong]
    return anchors, right, others[fair], wrong[fair]
