"""Losses of metric learning between pictures and captions."""

import torch
from torch import Tensor, nn

from attune.losses.library_loss import LibraryLoss
from attune.losses.table import Kind

Picked = tuple[Tensor, ...]
"""Pairs as (anchors, positives, anchors, negatives), or triplets as (anchors, positives, negatives): rows and columns."""


class MetricLoss(LibraryLoss):
    """A loss in both directions, each over embeddings of the other kind as its reference.

    The mean over pictures that look among captions and captions that look among pictures. A caption's label is its
    picture, so all captions of a picture are right answers.

    Args:
        loss: of the library, one that takes reference embeddings.
        kind: what is known of it.
        miner: chooses pairs or triplets; without one, all of the batch count.
    """

    def __init__(self, loss: nn.Module, kind: Kind, miner: nn.Module | None = None) -> None:
        super().__init__(loss)
        self.kind = kind
        self.miner = miner

    def compare(
        self, images: Tensor, texts: Tensor, owners: Tensor, ignored: Tensor | None, classes: Tensor | None
    ) -> Tensor:
        """See `LibraryLoss`; `classes` are not used.

        Raises:
            ValueError: if several captions of a picture come to a loss that takes one.
        """
        del classes
        if self.kind.one_each:
            if len(images) != len(texts):
                raise ValueError(f"{type(self.loss).__name__} takes one caption a picture: set multi_positive to false")
            both: Tensor = self.loss(images, ref_emb=texts) + self.loss(texts, ref_emb=images)
            return both / 2
        # Not `owners` itself: where both labels are one object the library takes the diagonal for each item itself.
        pictures = torch.arange(len(images), device=images.device)
        to_text = self.one_way(images, pictures, texts, owners, ignored)
        captions = owners < len(images)  # negatives that come with the data look for nothing
        backwards = None if ignored is None else ignored.T[captions]
        return (to_text + self.one_way(texts[captions], owners[captions], images, pictures, backwards)) / 2

    def one_way(
        self, queries: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """The loss of queries (n, dim) among answers (m, dim); `ignored` is bool (n, m)."""
        picked: Picked | None = None
        if self.kind.picks and self.miner is not None:
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
