"""How well similarities follow the scores of captions: what a model is judged by where captions are neither right nor wrong.

It is how semantic textual similarity is measured (Agirre et al. 2012, SemEval-2012 task 6; by sentence-transformers as
well). Only pairs of a picture, or text, with its own captions count.
"""

from collections.abc import Iterator

import numpy as np

from attune.data.pairs import Pairs
from attune.evaluation.comparison import Row, Section

DEFINITION = (
    "Correlation of the cosine similarity of each pair with its score, -1 to 1: spearman's of their ranks, by which weights "
    "are chosen, and pearson's of the numbers themselves. Captions with scores are neither right nor wrong answers, so "
    "there are no figures of retrieval."
)
RESAMPLES = 2000
BLOCK = 1_000_000
"""Weights of pairs at a time: 8 MB, and several times that at work."""


def correlations(similarity: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Spearman's and Pearson's correlation, for each of several weightings of the pairs.

    Args:
        similarity: float64 (pairs,).
        scores: float64 (pairs,).
        weights: how often each pair is there, (weightings, pairs); by default once.

    Returns:
        `spearman` and `pearson`: float64 (weightings,), -1 to 1, and 0 where either side is the same everywhere. Ties have
        the mean of their ranks.

    Example:
        Similarities 0.1, 0.2, 0.9 and scores 1, 2, 3: spearman is 1, as the order is the same; pearson 0.92.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    return {
        "spearman": _pearson(_ranks(similarity, weights), _ranks(scores, weights), weights),
        "pearson": _pearson(similarity[None], scores[None], weights),
    }


def similarities(images: np.ndarray, texts: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pair, in the order of the captions: cosine similarity, score, both float64, and the row of its picture, int64.

    Args:
        images: unit-length embeddings (pictures, dim).
        texts: unit-length embeddings (captions, dim).
        pairs: with scores.
    """
    owner = np.repeat(np.arange(len(pairs)), [len(captions) for captions in pairs.captions])
    similar = (images[owner].astype(np.float64) * texts).sum(axis=1)
    return similar, np.asarray([score for scores in pairs.scores for score in scores], dtype=np.float64), owner


def correlation_section(
    name: str,
    title: str,
    before: tuple[np.ndarray, np.ndarray] | None,
    after: tuple[np.ndarray, np.ndarray],
    pairs: Pairs,
) -> Section:
    """The table of one part of the data: both correlations, with a 95 % interval of their difference, or of one model's own.

    Intervals are by bootstrap over pictures, as those of `attune.evaluation.bootstrap`; ranks are found anew in every draw.

    Args:
        name: of the table, for code.
        title: for people.
        before: embeddings of pictures and captions with the one model; None if there is nothing to compare with.
        after: with the other.
        pairs: that they are of, with scores.
    """
    old = similarities(*before, pairs)[0] if before is not None else None
    new, scores, owner = similarities(*after, pairs)
    drawn = [
        (
            correlations(new, scores, weights),
            correlations(old, scores, weights) if old is not None else None,
        )
        for weights in _draws(owner)
    ]
    found, was = correlations(new, scores), correlations(old, scores) if old is not None else None
    rows = []
    for metric, (value,) in found.items():
        of_draws = np.concatenate([one[metric] - (other[metric] if other else 0) for one, other in drawn] or [np.zeros(0)])
        ends = [float(end) for end in np.percentile(of_draws, [2.5, 97.5])] if len(of_draws) else [None, None]
        fields = ("low", "high") if was else ("after_low", "after_high")
        first = float(was[metric][0]) if was else None
        rows.append(Row(metric=metric, before=first, after=float(value), **dict(zip(fields, ends, strict=True))))
    return Section(name=name, title=title, definition=DEFINITION, rows=rows)


def _draws(owner: np.ndarray, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each pair is in each of some draws of whole pictures, (draws, pairs); none of a single picture."""
    pictures = int(owner.max()) + 1
    if pictures < 2:
        return
    rng = np.random.default_rng(seed)
    most = max(1, BLOCK // len(owner))
    for done in range(0, RESAMPLES, most):
        count = min(most, RESAMPLES - done)
        drawn = rng.integers(pictures, size=(count, pictures)) + pictures * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * pictures).reshape(count, pictures)
        yield times[:, owner].astype(np.float64)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks of values that are there several times, from 1 up, ties at their mean: float64 (weightings, values)."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)  # of equal values
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    of_group = np.cumsum(counts, axis=1) - (counts - 1) / 2
    ranks = np.empty(weights.shape)
    ranks[:, order] = np.repeat(of_group, np.diff(starts, append=len(values)), axis=1)
    return ranks


def _pearson(left: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    x, y = (each - (weights * each).sum(axis=1, keepdims=True) / total for each in (left, right))
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    together = (weights * x * y).sum(axis=1)
    return np.asarray(np.divide(together, spread, out=np.zeros(len(weights)), where=spread > 1e-12 * total[:, 0]))
