"""A loss of whole embeddings and of their beginnings."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attune.losses.contrastive import Loss


class MatryoshkaLoss(nn.Module):
    """The mean of a loss over embeddings and over their first numbers, scaled to unit length again.

    So the first numbers alone are good embeddings as well: Matryoshka representation learning (Kusupati et al. 2022,
    arXiv:2205.13147), with all lengths counted alike.

    Args:
        losses: of the same kind, one for each length: those over classes have weights as long as the embeddings.
        dims: the lengths; the longest is the whole embedding.
    """

    def __init__(self, losses: Sequence[Loss], dims: Sequence[int]) -> None:
        super().__init__()
        self.losses = losses
        self.with_state = nn.ModuleList([loss for loss in losses if isinstance(loss, nn.Module)])
        self.dims = dims

    def forward(self, images: Tensor, texts: Tensor, *batch: Any) -> Tensor:
        """See `attune.losses.contrastive.clip_loss`."""
        found = [
            loss(shortened(images, dim), shortened(texts, dim), *batch)
            for loss, dim in zip(self.losses, self.dims, strict=True)
        ]
        return sum(found[1:], found[0]) / len(found)


def shortened(embeddings: Tensor, dim: int) -> Tensor:
    """The first `dim` numbers of embeddings (rows, dim or more), of unit length in float32; whole ones as they are."""
    return embeddings if embeddings.shape[1] == dim else F.normalize(embeddings[:, :dim].float(), dim=-1)
