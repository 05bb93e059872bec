"""Whether embeddings still differ: a model that embeds everything alike finds nothing."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from attune.errors import TrainingError

COLLAPSED_COSINE = 0.95
"""Mean cosine above which embeddings count as all alike. Pictures under a healthy CLIP have 0.4 to 0.6, those of one narrow
subject up to about 0.85; a learning rate far too high gives 0.99 and more within a few steps. The gap between CLIP's
pictures and texts (Liang et al. 2022, arXiv:2203.02053) plays no part: only embeddings of one kind are compared."""

LEFT_OF_SPREAD = 0.25
"""A rise is clear if at most this share of the start's distance to 1 is left: narrow subjects start near the bound."""

LEAST_RANK = 2.0
"""Fewer dimensions than this in use: all embeddings lie on a line."""

RANK_LEFT = 0.1
"""Share of the start's effective rank below which most of what the model told apart is lost. Fine-tuning on a narrow
subject may well halve it."""

CLEARLY_LOWER_RANK = 0.5
"""A handful of pictures has an effective rank of 2 or 3 to begin with: only a fall to half of the start's counts."""

MAX_ROWS = 2048
"""Embeddings looked at; more change the figures in the third digit and cost time with the square of their number."""


class Health(NamedTuple):
    """How far embeddings of one kind are spread.

    Attributes:
        mean_cosine: over all pairs of two different rows, -1 to 1; 1 if all are equal.
        effective_rank: number of dimensions in use, 1 to min(rows, dim).
        uniformity: 0 if all are equal, and lower the more evenly they fill the sphere; hardly below -4.
    """

    mean_cosine: float
    effective_rank: float
    uniformity: float


def embedding_health(embeddings: np.ndarray) -> Health:
    """Measures how far embeddings are spread.

    Effective rank is the exponential of the entropy of the singular values, scaled to a sum of 1 (Roy & Vetterli 2007,
    "The effective rank"); uniformity is ln mean exp(-2 |x - y|^2) over pairs (Wang & Isola 2020, arXiv:2005.10242).

    Args:
        embeddings: unit length, float (rows, dim), all of pictures or all of texts. Of more than `MAX_ROWS`, evenly spaced
            ones are looked at.

    Returns:
        The three figures; NaN if an embedding is not finite. Fewer than two rows have no pair: 0, 1 and 0.

    Example:
        Rows (1, 0), (1, 0), (0, 1), (0, 1): two of the six pairs are equal, so the mean cosine is 1/3; both singular
        values are the square root of 2, so the effective rank is 2; uniformity is ln(1/3 + 2/3 exp(-4)).
    """
    if len(embeddings) < 2:
        return Health(0.0, 1.0, 0.0)
    if not np.isfinite(embeddings).all():
        return Health(math.nan, math.nan, math.nan)
    rows = np.linspace(0, len(embeddings) - 1, min(len(embeddings), MAX_ROWS)).round().astype(int)
    chosen = embeddings[rows].astype(np.float64)
    cosines = (chosen @ chosen.T)[np.triu_indices(len(chosen), k=1)]  # (pairs,)
    shares = np.linalg.svd(chosen, compute_uv=False)
    shares = shares / shares.sum()
    shares = shares[shares > 0]
    # Of unit vectors, |x - y|^2 is 2 - 2 cos.
    uniformity = np.log(np.exp(-4 * (1 - cosines)).mean())
    return Health(float(cosines.mean()), float(np.exp(-(shares * np.log(shares)).sum())), float(uniformity))


def check_start(health: Mapping[str, Health]) -> None:
    """Refuses a starting model that gives no numbers: no recipe mends it.

    Args:
        health: of its embeddings of each kind, by what they are of.

    Raises:
        TrainingError: if a figure is no number.
    """
    broken = [what for what, figures in health.items() if not all(map(math.isfinite, figures))]
    if broken:
        raise TrainingError(
            f"The starting model's embeddings of {' and '.join(broken)} are no numbers, before any training: its weights "
            "are damaged. Choose another model, or fetch or export this one again"
        )


def check_collapse(now: Health, start: Health, what: str = "pictures", where: str = "") -> None:
    """Ends a run whose embeddings have become all alike.

    A start that is itself all alike, as random weights often are, has nothing to lose: then only a value that is no
    number counts.

    Args:
        now: of the model as it is.
        start: of the starting model, on the same pictures or texts.
        what: whose embeddings they are, for the message.
        where: such as ``"after epoch 2"``, for the message.

    Raises:
        TrainingError: if the mean cosine is above `COLLAPSED_COSINE` and clearly above the start's, or the effective
            rank fell below `LEAST_RANK` or a tenth of the start's, or a figure is no number.
    """
    place = f" {where}" if where else ""
    advice = (
        "Set a lower learning_rate (a tenth of it is a good try), and check that the examples differ: the same thing "
        "over and over leaves nothing to tell apart"
    )
    if not all(map(math.isfinite, now)):
        raise TrainingError(f"Embeddings of {what}{place} hold values that are no number. {advice}")
    cosine_bound = max(COLLAPSED_COSINE, 1 - LEFT_OF_SPREAD * (1 - start.mean_cosine))
    if start.mean_cosine < COLLAPSED_COSINE and now.mean_cosine > cosine_bound:
        raise TrainingError(
            f"Embeddings of {what} are all alike{place}: their mean cosine is {now.mean_cosine:.3f}, was "
            f"{start.mean_cosine:.3f} before training, and more than {cosine_bound:.3f} is a collapse. {advice}"
        )
    rank_bound = min(max(LEAST_RANK, RANK_LEFT * start.effective_rank), CLEARLY_LOWER_RANK * start.effective_rank)
    if now.effective_rank < rank_bound:
        raise TrainingError(
            f"Embeddings of {what} use hardly any dimensions{place}: their effective rank is {now.effective_rank:.1f}, was "
            f"{start.effective_rank:.1f} before training, and less than {rank_bound:.1f} is a collapse. {advice}"
        )
