"""Losses over pairs with a score: how near a caption is to its picture, or a text to another, is given as a number."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attune.losses.batch import EmbeddedBatch, Loss


def cosine_similarity_loss(batch: EmbeddedBatch) -> Tensor:
    """Mean squared difference of cosine similarity and score (Reimers and Gurevych 2019, arXiv:1908.10084, section 3).

    Args:
        batch: with `scores` from -1 to 1. Only pairs with a score count.

    Returns:
        float32 scalar, 0 to 4.

    Raises:
        ValueError: if there are no scores.
    """
    return F.mse_loss(*_scored(batch))


def cosent_loss(batch: EmbeddedBatch, *, scale: float = 20.0) -> Tensor:
    """Order of the pairs of a batch: one with a higher score is to be nearer (CoSENT, J. Su 2022, kexue.fm/archives/8847).

    Args:
        batch: with `scores` of any range, as only their order counts.
        scale: what similarities are multiplied by, above 0.

    Returns:
        float32 scalar: ln(1 + sum of exp(scale * (similarity i - similarity j))) over all i and j where j's score is higher;
        0 where all scores of the batch are the same.

    Raises:
        ValueError: if there are no scores.
    """
    similar, wanted = _scored(batch)
    similar = scale * similar
    wrong = (similar[:, None] - similar)[wanted[:, None] < wanted]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), 0)


def margin_mse_loss(batch: EmbeddedBatch, *, scale: float = 1.0) -> Tensor:
    """Mean squared difference of the model's margins and a teacher's (Hofstaetter et al. 2020, arXiv:2010.02666, section 3).

    A margin is by how much a picture's, or a query's, caption is nearer to it than a negative of its own. Embeddings have
    unit length, so it is one of cosines, times `scale`, and from -2 to 2 times that: a teacher's margins of another range
    take another scale, as those of a cross-encoder's logits do.

    Args:
        batch: with `positives`, and a teacher's margins as `scores`.
        scale: what the model's margins are multiplied by, above 0.

    Returns:
        float32 scalar; over each negative with each caption of its picture in the batch.

    Raises:
        ValueError: if there are no scores, or no negatives.
    """
    scores, own = batch.scores, batch.positives
    if scores is None or own is None:
        raise ValueError("MarginMSELoss takes pictures, or queries, with negatives and margins")
    similar = batch.similarities() * scale
    picture, negative = (~scores.isnan() & ~own).nonzero(as_tuple=True)
    found = similar[picture] - similar[picture, negative][:, None]  # (negatives, texts)
    wanted = scores[picture] - scores[picture, negative][:, None]
    return F.mse_loss(found[own[picture]], wanted[own[picture]].float())


def _scored(batch: EmbeddedBatch) -> tuple[Tensor, Tensor]:
    """Similarities and scores of the pairs that have one: both float32 (pairs,)."""
    if batch.scores is None:
        raise ValueError("The loss takes pairs with scores")
    given = ~batch.scores.isnan()
    return batch.similarities()[given], batch.scores[given].float()


GRADED: dict[str, Loss] = {
    "CosineSimilarityLoss": cosine_similarity_loss,
    "CoSENTLoss": cosent_loss,
    "MarginMSELoss": margin_mse_loss,
}
