"""Losses of metric learning between pictures and captions."""

import torch
from torch import Tensor, nn

from attune.losses.table import Kind

Picked = tuple[Tensor, ...]
"""Pairs as (anchors, positives, anchors, negatives), or triplets as (anchors, positives, negatives): rows and columns."""


class MetricLoss(nn.Module):
    """A loss of pytorch-metric-learning in both directions, each over embeddings of the other kind as its reference.

    The mean over pictures that look among captions and captions that look among pictures. A caption's label is its
    picture, so all captions of a picture are right answers. It has no use for the model's temperature, and trains none.

    Args:
        loss: of the library, one that takes reference embeddings.
        kind: what is known of it.
        miner: chooses pairs or triplets; without one, all of the batch count.
    """

    def __init__(self, loss: nn.Module, kind: Kind, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.kind = kind
        self.miner = miner

    def forward(
        self,
        images: Tensor,
        texts: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        positives: Tensor | None = None,
        ignored: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        """See `attune.losses.contrastive.clip_loss`; float32 throughout, as mining needs it.

        Raises:
            ValueError: if several captions of a picture come to a loss that takes one.
        """
        del logit_scale, logit_bias, classes
        with torch.autocast(images.device.type, enabled=False):
            images, texts = images.float(), texts.float()
            pictures = torch.arange(len(images), device=images.device)
            # A tensor of its own: where both labels are the same object the library takes the diagonal for each item itself.
            owners = pictures.clone() if positives is None else positives.int().argmax(0)
            if self.kind.one_each:
                if len(images) != len(texts):
                    raise ValueError(f"{type(self.loss).__name__} takes one caption a picture: set multi_positive to false")
                both: Tensor = self.loss(images, ref_emb=texts) + self.loss(texts, ref_emb=images)
                return both / 2
            to_text = self._one_way(images, pictures, texts, owners, ignored)
            to_image = self._one_way(texts, owners, images, pictures, None if ignored is None else ignored.T)
            return (to_text + to_image) / 2

    def _one_way(
        self, queries: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """The loss of queries (n, dim) among answers (m, dim); `ignored` is bool (n, m)."""
        picked: Picked | None = None
        if self.kind.picks:
            same = labels[:, None] == answer_labels
            if self.miner is not None:
                picked = _without(ignored, self.miner(queries.detach(), labels, answers.detach(), answer_labels))
            elif ignored is not None:
                picked = (*same.nonzero(as_tuple=True), *(~same & ~ignored).nonzero(as_tuple=True))
        found: Tensor = self.loss(queries, labels, picked, ref_emb=answers, ref_labels=answer_labels)
        return found


def _without(ignored: Tensor | None, picked: Picked) -> Picked:
    """What a miner chose, without the negatives that are none."""
    if ignored is None:
        return picked
    *right, anchors, negatives = picked if len(picked) == 4 else (picked[1], picked[0], picked[2])
    fair = ~ignored[anchors, negatives]
    if len(picked) == 4:
        return (*right, anchors[fair], negatives[fair])
    return (anchors[fair], right[0][fair], negatives[fair])
