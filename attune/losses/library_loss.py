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
        elif self.kind.picks and ignored is not None:
            same = labels[:, None] == answer_labels
            picked = (*same.nonzero(as_tuple=True), *(~same & ~ignored).nonzero(as_tuple=True))
        found: Tensor = self.loss(queries, labels, picked, ref_emb=answers, ref_labels=answer_labels)
        return found


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
