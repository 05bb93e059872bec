"""Training losses by name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def clip_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric contrastive loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3).

    Row i of `images` belongs to row i of `texts`; all other rows of the batch are its negatives. The logits are
    computed in float32: at a scale of 100, bf16 would round away differences between near captions.

    Args:
        images: unit-length embeddings, (batch, dim).
        texts: unit-length embeddings, (batch, dim).
        logit_scale: scalar, already exponentiated (1 to 100).

    Returns:
        Scalar: mean of the image-to-text and the text-to-image cross-entropy; ln(batch) if nothing is told apart.
    """
    logits = logit_scale.float() * images.float() @ texts.float().T  # (batch, batch)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


LOSSES: dict[str, Loss] = {"CLIPLoss": clip_loss}
