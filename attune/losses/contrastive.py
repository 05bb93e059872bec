"""Losses that tell what belongs together from the rest of a batch, in which a picture may have several captions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attune.losses.batch import EmbeddedBatch, Loss, Taught

_LEFT_OUT = -1e30
"""Logit of an ignored pair. Finite: 0 times it is 0, where 0 times minus infinity would be no number."""


def clip_loss(batch: EmbeddedBatch, *, label_smoothing: float = 0.0) -> Tensor:
    """Symmetric contrastive loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3), with any number of positives.

    A picture with several captions in the batch has several right answers: its loss is the mean over them of minus the
    log-probability of each (supervised contrastive learning, Khosla et al. 2020, arXiv:2004.11362, loss L_out). Ignored
    pairs are left out of the denominators. Where there is a teacher, a share of the target is the distribution that it
    finds (momentum distillation, Li et al. 2021, arXiv:2107.07651, equation 6).

    Args:
        batch: with `logit_scale`, and `taught` if there is a teacher; a bias added to all logits would change no softmax.
        label_smoothing: share (0 to 1) of the target that goes evenly to all pairs that are not ignored.

    Returns:
        float32 scalar: mean of the image-to-text and the text-to-image loss; ln(batch) if nothing is told apart.

    Raises:
        ValueError: as `EmbeddedBatch.targets`.
    """
    targets, counted, logits = batch.targets(), batch.counted(), batch.similarities(batch.logit_scale)
    taught, turned = batch.taught, batch.taught and batch.taught._replace(logits=batch.taught.logits.T)
    to_text = _one_way(logits, targets, counted, label_smoothing, taught)
    to_image = _one_way(logits.T, targets.T, counted.T, label_smoothing, turned)
    return (to_text + to_image) / 2


def ranking_loss(batch: EmbeddedBatch, *, scale: float = 20.0, symmetric: bool = False) -> Tensor:
    """Each picture's, or query's, captions among all texts of the batch (Henderson et al. 2017, arXiv:1705.00652, section
    4).

    It is one direction of `clip_loss`, and its temperature is not learnt: the model's own stays as it is.

    Args:
        batch: as for `clip_loss`.
        scale: what similarities are multiplied by, above 0; by default that of sentence-transformers.
        symmetric: whether captions look for their pictures as well, and both directions count alike.

    Returns:
        float32 scalar; ln(texts) if nothing is told apart.

    Raises:
        ValueError: as `clip_loss`.
    """
    targets, counted, logits = batch.targets(), batch.counted(), batch.similarities(scale)
    to_text = _one_way(logits, targets, counted)
    return (to_text + _one_way(logits.T, targets.T, counted.T)) / 2 if symmetric else to_text


def simcse_loss(batch: EmbeddedBatch, *, temperature: float = 0.05) -> Tensor:
    """Each text's other embedding among those of all texts of the batch (Gao et al. 2021, arXiv:2104.08821, equation 4).

    Both come from one tower, which drops out other numbers each time. The default temperature is the paper's.

    Args:
        batch: with the other embeddings as `texts`, in the same order.
        temperature: what similarities are divided by, above 0.

    Returns:
        float32 scalar; ln(texts) if nothing is told apart.

    Raises:
        ValueError: as `clip_loss`.
    """
    return ranking_loss(batch, scale=1 / temperature)


def siglip_loss(batch: EmbeddedBatch) -> Tensor:
    """Sigmoid loss of SigLIP (Zhai et al. 2023, arXiv:2303.15343, equation 1): each pair is a yes or no of its own.

    Made for weights that were trained with it. To CLIP's own weights its logits are far too high to begin with.

    Args:
        batch: with `logit_scale` and `logit_bias`.

    Returns:
        float32 scalar: sum over all pairs that are not ignored, divided by the number of pictures. It grows with the
        captions a picture, as the batch's number of pairs does.

    Raises:
        ValueError: if there is no `logit_bias`, or as `EmbeddedBatch.targets`.
    """
    if batch.logit_bias is None:
        raise ValueError("The sigmoid loss needs the model's logit_bias, and this model has none. Use CLIPLoss with it")
    logits = batch.similarities(batch.logit_scale) + batch.logit_bias.float()
    losses = -F.logsigmoid(torch.where(batch.targets(), logits, -logits))  # (pictures, captions)
    return losses.masked_fill(~batch.counted(), 0).sum() / len(batch.images)


def _one_way(
    logits: Tensor, positives: Tensor, counted: Tensor, label_smoothing: float = 0.0, taught: Taught | None = None
) -> Tensor:
    """Cross-entropy of the rows of `logits` with an even distribution over each one's positives, or with what a teacher
    makes of it; the mean over rows that have any.
    """
    asked = positives.any(1)
    targets = positives / positives.sum(1, keepdim=True).clamp(min=1)
    if taught is not None:
        found = taught.logits.masked_fill(~counted, _LEFT_OUT).softmax(1)
        targets = ((1 - taught.share) * targets + taught.share * found) * asked[:, None]
    if label_smoothing:
        even = counted / counted.sum(1, keepdim=True)
        targets = ((1 - label_smoothing) * targets + label_smoothing * even) * asked[:, None]
    found = F.cross_entropy(logits.masked_fill(~counted, _LEFT_OUT), targets, reduction="sum")
    return found / asked.sum()


CONTRASTIVE: dict[str, Loss] = {
    "CLIPLoss": clip_loss,
    "SigLIPLoss": siglip_loss,
    "MultipleNegativesRankingLoss": ranking_loss,
    "SimCSELoss": simcse_loss,
}
