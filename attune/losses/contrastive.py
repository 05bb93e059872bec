"""Losses that tell what belongs together from the rest of a batch, in which a picture may have several captions."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_LEFT_OUT = -1e30
"""Logit of an ignored pair. Finite: 0 times it is 0, where 0 times minus infinity would be no number."""


class Loss(Protocol):
    """What a training loss takes and gives; `clip_loss` says it in words."""

    def __call__(
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
        """The loss of one batch, a float32 scalar."""


def clip_loss(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    positives: Tensor | None = None,
    ignored: Tensor | None = None,
    classes: Tensor | None = None,
    scores: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Symmetric contrastive loss of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3), with any number of positives.

    A picture with several captions in the batch has several right answers: its loss is the mean over them of minus the
    log-probability of each (supervised contrastive learning, Khosla et al. 2020, arXiv:2004.11362, loss L_out).

    Args:
        images: unit-length embeddings, (pictures, dim).
        texts: unit-length embeddings, (captions, dim); negatives that come with the data are captions of no picture.
        logit_scale: scalar, already exponentiated (1 to 100).
        logit_bias: not used: a number added to all logits changes no softmax. It is here so that losses can be swapped.
        positives: bool (pictures, captions), True where the caption belongs to the picture; at least one in every row,
            else the loss is not a number. A column without any is a text that looks for no picture. Left out: caption i
            belongs to picture i and to no other.
        ignored: bool (pictures, captions), True where the pair is neither positive nor a fair negative: it is left out
            of the denominators. Where it says so of a positive, the positive stays.
        classes: not used; see `attune.losses.class_loss`.
        scores: not used; see `attune.losses.graded`.
        rows: not used; see `attune.losses.cross_batch_memory`.
        label_smoothing: share (0 to 1) of the target that goes evenly to all pairs that are not ignored.

    Returns:
        float32 scalar: mean of the image-to-text and the text-to-image loss; ln(batch) if nothing is told apart.

    Raises:
        ValueError: if there are no `positives` and not as many captions as pictures.
    """
    del logit_bias, classes, scores, rows
    positives = _check_positives(images, texts, positives)
    counted = _counted(positives, ignored)
    logits = _logits(images, texts, logit_scale)
    to_text = _one_way(logits, positives, counted, label_smoothing)
    to_image = _one_way(logits.T, positives.T, counted.T, label_smoothing)
    return (to_text + to_image) / 2


def ranking_loss(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    positives: Tensor | None = None,
    ignored: Tensor | None = None,
    classes: Tensor | None = None,
    scores: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    scale: float = 20.0,
    symmetric: bool = False,
) -> Tensor:
    """Each picture's, or query's, captions among all texts of the batch (Henderson et al. 2017, arXiv:1705.00652, section
    4).

    It is one direction of `clip_loss`, and its temperature is not learnt: the model's own stays as it is.

    Args:
        images: as all others that are not named here, see `clip_loss`.
        texts: see `clip_loss`.
        logit_scale: not used.
        logit_bias: not used.
        positives: see `clip_loss`.
        ignored: see `clip_loss`.
        classes: not used.
        scores: not used.
        rows: not used.
        scale: what similarities are multiplied by, above 0; by default that of sentence-transformers.
        symmetric: whether captions look for their pictures as well, and both directions count alike.

    Returns:
        float32 scalar; ln(texts) if nothing is told apart.

    Raises:
        ValueError: as `clip_loss`.
    """
    del logit_scale, logit_bias, classes, scores, rows
    positives = _check_positives(images, texts, positives)
    counted = _counted(positives, ignored)
    logits = _logits(images, texts, images.new_tensor(scale))
    to_text = _one_way(logits, positives, counted)
    return (to_text + _one_way(logits.T, positives.T, counted.T)) / 2 if symmetric else to_text


def siglip_loss(
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
    """Sigmoid loss of SigLIP (Zhai et al. 2023, arXiv:2303.15343, equation 1): each pair is a yes or no of its own.

    Made for weights that were trained with it. To CLIP's own weights its logits are far too high to begin with.

    Args:
        images: unit-length embeddings, (pictures, dim).
        texts: unit-length embeddings, (captions, dim).
        logit_scale: scalar, already exponentiated.
        logit_bias: scalar added to all logits, the model's own; about -10 where training starts.
        positives: bool (pictures, captions); see `clip_loss`.
        ignored: bool (pictures, captions); see `clip_loss`.
        classes: not used.
        scores: not used.
        rows: not used.

    Returns:
        float32 scalar: sum over all pairs that are not ignored, divided by the number of pictures. It grows with the
        captions a picture, as the batch's number of pairs does.

    Raises:
        ValueError: if there is no `logit_bias`, or no `positives` and not as many captions as pictures.
    """
    del classes, scores, rows
    if logit_bias is None:
        raise ValueError("The sigmoid loss needs the model's logit_bias, and this model has none. Use CLIPLoss with it")
    positives = _check_positives(images, texts, positives)
    logits = _logits(images, texts, logit_scale) + logit_bias.float()
    losses = -F.logsigmoid(torch.where(positives, logits, -logits))  # (pictures, captions)
    return losses.masked_fill(~_counted(positives, ignored), 0).sum() / len(images)


def _logits(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled similarities (pictures, captions) in float32: at a scale of 100, bf16 would round near captions together.

    Autocast is switched off for it, or the product of two float32 matrices would be computed in bf16 all the same.
    """
    with torch.autocast(images.device.type, enabled=False):
        return logit_scale.float() * images.float() @ texts.float().T


def _check_positives(images: Tensor, texts: Tensor, positives: Tensor | None) -> Tensor:
    if positives is not None:
        return positives
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} pictures and {len(texts)} captions: which belong together? Give positives")
    return torch.eye(len(images), dtype=torch.bool, device=images.device)


def _counted(positives: Tensor, ignored: Tensor | None) -> Tensor:
    """Which pairs the loss looks at: bool (pictures, captions)."""
    return torch.ones_like(positives) if ignored is None else positives | ~ignored


def _one_way(logits: Tensor, positives: Tensor, counted: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the rows of `logits` with an even distribution over each one's positives; the mean over rows that
    have any.
    """
    asked = positives.any(1)
    targets = positives / positives.sum(1, keepdim=True).clamp(min=1)
    if label_smoothing:
        even = counted / counted.sum(1, keepdim=True)
        targets = ((1 - label_smoothing) * targets + label_smoothing * even) * asked[:, None]
    found = F.cross_entropy(logits.masked_fill(~counted, _LEFT_OUT), targets, reduction="sum")
    return found / asked.sum()


CONTRASTIVE: dict[str, Loss] = {
    "CLIPLoss": clip_loss,
    "SigLIPLoss": siglip_loss,
    "MultipleNegativesRankingLoss": ranking_loss,
}
