"""What all losses of pytorch-metric-learning share here: the batch they are given, made into what they take."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class LibraryLoss(nn.Module, ABC):
    """A loss of the library over pictures and captions; it has no use for the model's temperature, and trains none.

    Args:
        loss: of the library.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self,
        images: Tensor,
        texts: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        positives: Tensor | None = None,
        ignored: Tensor | None = None,
        classes: Tensor | None = None,
        scores: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """See `attune.losses.contrastive.clip_loss`; float32 throughout, as mining needs it.

        Raises:
            ValueError: what `compare` cannot use.
        """
        del logit_scale, logit_bias, scores, rows
        owners = owners_of(images, texts, positives)
        with torch.autocast(images.device.type, enabled=False):
            return self.compare(images.float(), texts.float(), owners, ignored, classes)

    @abstractmethod
    def compare(
        self, images: Tensor, texts: Tensor, owners: Tensor, ignored: Tensor | None, classes: Tensor | None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            images: unit-length embeddings, float32 (pictures, dim).
            texts: unit-length embeddings, float32 (captions, dim).
            owners: int64 (captions,), the picture of each caption; see `owners_of`.
            ignored: bool (pictures, captions), pairs that are no fair negatives.
            classes: int64 (pictures,), from 0.
        """


def owners_of(images: Tensor, texts: Tensor, positives: Tensor | None) -> Tensor:
    """The picture of each caption by its place in the batch, int64 (captions,).

    A text that belongs to none has a number of its own, from the number of pictures on.
    """
    if positives is None:
        return torch.arange(len(images), device=images.device)
    places = torch.arange(len(images), len(images) + len(texts), device=images.device)
    return torch.where(positives.any(0), positives.int().argmax(0), places)
