"""A loss of whole embeddings and of their beginnings."""

from collections.abc import Sequence

from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch, Loss


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

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch."""
        found = [loss(batch.shortened(dim)) for loss, dim in zip(self.losses, self.dims, strict=True)]
        return sum(found[1:], found[0]) / len(found)
