"""A loss of the library, mended where it cannot train."""

from typing import Any

import torch
from pytorch_metric_learning.losses import DynamicSoftMarginLoss
from torch import Tensor


class DynamicSoftMargin(DynamicSoftMarginLoss):  # type: ignore[misc]  # the library has no types
    """Triplets weighed by how large their margin is among those of late (Zhang and Rusinkiewicz 2019, ICCV).

    In pytorch-metric-learning 2.9 the running histogram keeps the last step's graph, so that a second step fails, is in
    no state dict, has no bins for the largest margins, of pairs that are quite wrong, and none for what is no number.
    It also counts whatever the loss is asked of; here, what it is trained on alone, as with running statistics.

    Args:
        **options: the library's own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.hist_
        self.register_buffer("hist_", torch.zeros(self.num_bins + 2))

    def update_histogram(self, data: Tensor) -> None:
        """Counts margins (triplets,) in; the weights that follow from it are constants to a step."""
        if self.training and data.isfinite().all():
            super().update_histogram(data.detach())

    def weigh_loss(self, data: Tensor) -> Tensor:
        """Margins (triplets,) times their weights; those that are no numbers stay so, for whoever looks at the loss."""
        found: Tensor = super().weigh_loss(data) if data.isfinite().all() else data
        return found
