"""Losses over pairs with a score: how near a caption is to its picture, or a text to another, is given as a number."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attune.losses.contrastive import Loss


def cosine_similarity_loss(
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
    """Mean squared difference of cosine similarity and score (Reimers and Gurevych 2019, arXiv:1908.10084, section 3).

    Args:
        images: unit-length embeddings, (pictures, dim).
        texts: unit-length embeddings, (captions, dim).
        logit_scale: not used.
        logit_bias: not used.
        positives: not used.
        ignored: not used.
        classes: not used.
        scores: float (pictures, captions), -1 to 1; NaN where none is given. Only pairs with a score count.
        rows: not used.

    Returns:
        float32 scalar, 0 to 4.

    Raises:
        ValueError: if there are no scores.
    """
    del logit_scale, logit_bias, positives, ignored, classes, rows
    return F.mse_loss(*_scored(images, texts, scores))


def cosent_loss(
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
) -> Tensor:
    """Order of the pairs of a batch: one with a higher score is to be nearer (CoSENT, J. Su 2022, kexue.fm/archives/8847).

    Args:
        images: see `cosine_similarity_loss`, as all others that are not named here.
        texts: unit-length embeddings, (captions, dim).
        logit_scale: not used.
        logit_bias: not used.
        positives: not used.
        ignored: not used.
        classes: not used.
        scores: float (pictures, captions), of any range, as only their order counts; NaN where none is given.
        rows: not used.
        scale: what similarities are multiplied by, above 0.

    Returns:
        float32 scalar: ln(1 + sum of exp(scale * (similarity i - similarity j))) over all i and j where j's score is higher;
        0 where all scores of the batch are the same.

    Raises:
        ValueError: if there are no scores.
    """
    del logit_scale, logit_bias, positives, ignored, classes, rows
    similar, wanted = _scored(images, texts, scores)
    similar = scale * similar
    wrong = (similar[:, None] - similar)[wanted[:, None] < wanted]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), 0)


def margin_mse_loss(
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
    scale: float = 1.0,
) -> Tensor:
    """Mean squared difference of the model's margins and a teacher's (Hofstaetter et al. 2020, arXiv:2010.02666, section 3).

    A margin is by how much a picture's, or a query's, caption is nearer to it than a negative of its own. Embeddings have
    unit length, so it is one of cosines, times `scale`, and from -2 to 2 times that: a teacher's margins of another range
    take another scale, as those of a cross-encoder's logits do.

    Args:
        images: unit-length embeddings, (pictures, dim).
        texts: unit-length embeddings of captions and negatives, (texts, dim).
        logit_scale: not used.
        logit_bias: not used.
        positives: bool (pictures, texts), True where a text is a caption of the picture; see `clip_loss`.
        ignored: not used.
        classes: not used.
        scores: float (pictures, texts), the teacher's: 0 for a caption, minus its margin for a negative of the picture's
            own; NaN elsewhere.
        rows: not used.
        scale: what the model's margins are multiplied by, above 0.

    Returns:
        float32 scalar; over each negative with each caption of its picture in the batch.

    Raises:
        ValueError: if there are no scores, or no negatives.
    """
    del logit_scale, logit_bias, ignored, classes, rows
    if scores is None or positives is None:
        raise ValueError("MarginMSELoss takes pictures, or queries, with negatives and margins")
    similar = _similarities(images, texts) * scale
    picture, negative = (~scores.isnan() & ~positives).nonzero(as_tuple=True)
    found = similar[picture] - similar[picture, negative][:, None]  # (negatives, texts)
    wanted = scores[picture] - scores[picture, negative][:, None]
    own = positives[picture]
    return F.mse_loss(found[own], wanted[own].float())


def _scored(images: Tensor, texts: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor]:
    """Similarities and scores of the pairs that have one: both float32 (pairs,)."""
    if scores is None:
        raise ValueError("The loss takes pairs with scores")
    given = ~scores.isnan()
    return _similarities(images, texts)[given], scores[given].float()


def _similarities(images: Tensor, texts: Tensor) -> Tensor:
    """Cosines (pictures, texts) in float32, with autocast switched off."""
    with torch.autocast(images.device.type, enabled=False):
        return images.float() @ texts.float().T


GRADED: dict[str, Loss] = {
    "CosineSimilarityLoss": cosine_similarity_loss,
    "CoSENTLoss": cosent_loss,
    "MarginMSELoss": margin_mse_loss,
}
