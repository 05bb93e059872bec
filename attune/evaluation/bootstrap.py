"""How sure a figure is: intervals and p-values which know that the captions of one picture are not independent.

Queries come in clusters: those of one picture. Clusters are drawn, or change sides, as a whole, because independent
draws of single captions would make every interval too narrow (Field & Welsh 2007, Bootstrapping clustered data, Journal of
the Royal Statistical Society B 69). A figure is a mean over queries, so sums and counts of each cluster are all that is
needed, and the resamples of all figures are one matrix product.

There is no interval for medians: the median rank is no mean, and would have to be computed anew from every draw.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from attune.errors import EvaluationError

BLOCK = 1_000_000
"""Numbers drawn at a time: 8 MB, and about three times that at work."""

ROUNDING = 1e-12
"""Of a sum, as a share of the sum of absolute values: by less than this, equal sums may differ."""


class Difference(NamedTuple):
    """How sure it is that the mean after differs from the mean before; NaN where nothing can be said.

    Attributes:
        low: 2.5 % point of after minus before.
        high: 97.5 % point.
        p_value: two-sided, of no difference; above 0, at most 1.
    """

    low: float
    high: float
    p_value: float


def interval(
    values: Mapping[str, np.ndarray], clusters: np.ndarray, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % confidence interval of each mean over queries, by bootstrap over clusters (percentiles).

    Whole clusters are drawn with replacement, as many as there are (Efron & Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 13). With few clusters such intervals are too narrow: with 10 they hold the truth nine times in ten.

    Args:
        values: of each query, by metric, float64 (queries,). NaN, a query without a right answer, does not count.
        clusters: the picture of each query, or whatever its queries have in common: int64 (queries,), any numbers.
        resamples: draws.
        seed: of the draws; the same one gives the same interval, whichever other metrics are there.

    Returns:
        The 2.5 % and the 97.5 % point by metric; NaN where fewer than two clusters have a value, since one picture does
        not show how pictures differ.

    Raises:
        EvaluationError: if there are not as many values as clusters, or no resamples.

    Example:
        Two pictures, all of the one's captions hits (1) and all of the other's misses (0): a quarter of the draws has the
        one twice, a quarter the other, so the interval is 0 to 1, however many captions they have.
    """
    _check(values, clusters, resamples)
    table = _by_cluster(values, clusters)
    low, high = _percentiles(*table, resamples, seed)
    return dict(zip(values, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def paired_difference(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Interval and p-value of after minus before on the same queries, by metric.

    The interval is `interval`'s, of the gain of each query, so both models are scored on the same draws.

    The p-value is that of a randomisation test (Edgington & Onghena 2007, Randomization Tests), which Smucker, Allan &
    Carterette (CIKM 2007) found best suited to compare retrieval systems. If the models are alike, before and after of a
    cluster might as well be exchanged, which turns the sign of its gain: the p-value is the share of random signs that
    give a mean at least as far from 0, the real one counted among them (Phipson & Smyth 2010, Permutation p-values should
    never be zero), so it is at least 1 / (resamples + 1). It assumes nothing of how gains are spread and holds for few
    clusters too. As it does not come from the interval, one can be just over the line where the other is not.

    Args:
        before: values of each query with the one model, by metric, float64 (queries,).
        after: with the other one. A query counts if both are numbers.
        clusters: as for `interval`.
        resamples: draws, and as many sets of signs.
        seed: of both.

    Returns:
        By metric; NaN where fewer than two clusters count.

    Raises:
        EvaluationError: as `interval`, and if the two are not of the same metrics.

    Example:
        All of 5 pictures gain 0.1. Of the 32 ways to choose signs, 2 give a mean as far from 0: the p-value is about
        2/32, and not lower, although the interval is 0.1 to 0.1.
    """
    if before.keys() != after.keys():
        raise EvaluationError(
            f"There are values of {', '.join(before)} before, and of {', '.join(after)} after. Give both of the same metrics"
        )
    for values in (before, after):
        _check(values, clusters, resamples)
    table = _by_cluster({name: np.subtract(after[name], before[name], dtype=np.float64) for name in before}, clusters)
    low, high = _percentiles(*table, resamples, seed)
    p_value = _sign_flips(*table, resamples, seed)
    found = zip(low.tolist(), high.tolist(), p_value.tolist(), strict=True)
    return {name: Difference(*three) for name, three in zip(before, found, strict=True)}


def _check(values: Mapping[str, np.ndarray], clusters: np.ndarray, resamples: int) -> None:
    if resamples < 1:
        raise EvaluationError(f"resamples = {resamples}: an interval is read off the resamples. Use 1 or more, such as 2000")
    for name, value in values.items():
        if np.shape(value) != np.shape(clusters):
            raise EvaluationError(
                f"{name} has values of shape {np.shape(value)}, and clusters are of shape {np.shape(clusters)}. Give each "
                "query a value and the number of its cluster"
            )


def _by_cluster(values: Mapping[str, np.ndarray], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each cluster's sum of values and number of values, of each metric: both float64 (clusters, metrics)."""
    known, cluster = np.unique(clusters, return_inverse=True)
    sums, counts = np.zeros((2, len(known), len(values)))
    for column, value in enumerate(values.values()):
        there = ~np.isnan(value)
        sums[:, column] = np.bincount(cluster, np.where(there, value, 0), len(known))
        counts[:, column] = np.bincount(cluster, there, len(known))
    return sums, counts


def _percentiles(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The 2.5 % and the 97.5 % point of the resampled means: float64 (2, metrics)."""
    clusters, enough = len(sums), _enough(counts)
    found = np.full((2, len(enough)), np.nan)
    if not enough.any():
        return found
    rng = np.random.default_rng(seed)
    means = []
    for rows in _blocks(resamples, clusters):
        drawn = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw that has no value of a metric is 0 / 0, and left out
            means.append((times @ sums) / (times @ counts))
    found[:, enough] = np.nanpercentile(np.concatenate(means)[:, enough], [2.5, 97.5], axis=0)
    return found


def _sign_flips(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p-value of a mean of 0: float64 (metrics,)."""
    clusters, enough = len(sums), _enough(counts)
    if not enough.any():
        return np.full(len(enough), np.nan)
    rng = np.random.default_rng(seed)
    reached = np.abs(sums.sum(axis=0)) - ROUNDING * np.abs(sums).sum(axis=0)
    as_far = np.ones(sums.shape[1])  # the real signs
    for rows in _blocks(resamples, clusters):
        signs = 2.0 * rng.integers(2, size=(rows, clusters)) - 1
        as_far += (np.abs(signs @ sums) >= reached).sum(axis=0)
    return np.where(enough, as_far / (resamples + 1), np.nan)


def _enough(counts: np.ndarray) -> np.ndarray:
    """Which metrics at least two clusters have a value of: bool (metrics,)."""
    enough: np.ndarray = (counts > 0).sum(axis=0) > 1
    return enough


def _blocks(resamples: int, clusters: int) -> Iterator[int]:
    """How many resamples to draw at once, again and again until all are drawn."""
    most = max(1, BLOCK // clusters)
    for done in range(0, resamples, most):
        yield min(most, resamples - done)
