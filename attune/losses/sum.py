"""Several losses as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch, Loss


class SumOfLosses(nn.Module):
    """A weighted sum over the same batch.

    Args:
        losses: at least one.
        weights: one for each.
    """

    def __init__(self, losses: Sequence[Loss], weights: Sequence[float]) -> None:
        super().__init__()
        self.losses = losses
        self.with_state = nn.ModuleList([loss for loss in losses if isinstance(loss, nn.Module)])
        self.weights = weights

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch."""
        first, *others = (weight * loss(batch) for weight, loss in zip(self.weights, self.losses, strict=True))
        return sum(others, first)
