"""Where a model gained and where it lost: query by query, and in slices of the held-out set."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from attune.evaluation.bootstrap import paired_difference

LENGTHS = {5: "1-5 words", 10: "6-10 words", 20: "11-20 words"}
"""The most words of a caption, and what such captions are called."""


def wins_and_losses(before: np.ndarray, after: np.ndarray) -> dict[str, int]:
    """How many queries a model answers `better`, `worse` and the `same` as before.

    Args:
        before: ranks of one direction, from 1, int64 (queries,); see `attune.evaluation.ranking.ranks`.
        after: on the same queries.

    Example:
        Ranks 2, 90, 7 before and 1, 3, 7 after: two better, none worse, one the same.
    """
    better, worse = int(np.count_nonzero(after < before)), int(np.count_nonzero(after > before))
    return {"better": better, "worse": worse, "same": len(before) - better - worse}


class Slice(BaseModel):
    """What became of the queries that share a value of a tag."""

    model_config = ConfigDict(frozen=True)

    tag: str = Field(description="What the held-out set was sliced by: `label`, `caption length` ...")
    value: str = Field(description="What the queries of this slice have there.")
    queries: int = Field(description="With a value of the metric.")
    before: float = Field(description="Mean of the metric over these queries, starting model.")
    after: float = Field(description="The same of the trained model.")
    low: float | None = Field(description="2.5 % end of after minus before; None if all queries are of one picture.")
    high: float | None = Field(description="97.5 % end.")
    p_value: float | None = Field(description="Two-sided, of no difference, corrected for the number of slices.")


def effect_by_slice(
    before: np.ndarray,
    after: np.ndarray,
    clusters: np.ndarray,
    tags: Mapping[str, Sequence[str]],
    smallest: int = 20,
    most: int = 20,
    in_all: int = 100,
    resamples: int = 5000,
    seed: int = 0,
) -> list[Slice]:
    """The difference between two models in every slice that is large enough, tag by tag, the largest slice first.

    Among many slices some differ by chance, so their p-values are corrected together (Holm 1979, A simple sequentially
    rejective multiple test procedure): the chance that any slice without a difference has a p-value of at most 0.05 is at
    most 5 %. Intervals are each slice's own.

    Args:
        before: values of each query in one metric and direction, float64 (queries,); NaN does not count.
        after: with the other model, on the same queries.
        clusters: the picture of each query, see `attune.evaluation.bootstrap.interval`.
        tags: by tag, the value of each query; an empty one is in no slice.
        smallest: queries of a slice that is looked at.
        most: slices of one tag, the largest ones.
        in_all: slices of all tags, the largest ones.
        resamples: draws of all pictures. No corrected p-value is below the number of slices / (resamples + 1).
        seed: of the draws.
    """
    there = ~np.isnan(after - before)
    members: dict[tuple[str, str], np.ndarray] = {}
    for tag, values in tags.items():
        of_query = np.where(there, np.asarray(values, dtype=object), "")
        for value, queries in Counter(of_query[of_query != ""]).most_common(most):
            if queries >= smallest:
                members[tag, value] = of_query == value
    largest = sorted(members, key=lambda one: -np.count_nonzero(members[one]))[:in_all]
    members = {one: inside for one, inside in members.items() if one in largest}
    # Each draw of pictures serves all slices: queries outside of one are NaN there.
    old, new = (
        {str(number): np.where(inside, side, np.nan) for number, inside in enumerate(members.values())}
        for side in (before, after)
    )
    found = paired_difference(old, new, clusters, resamples, seed).values()
    corrected = holm(np.asarray([difference.p_value for difference in found]))
    return [
        Slice(
            tag=tag,
            value=value,
            queries=np.count_nonzero(inside),
            before=before[inside].mean(),
            after=after[inside].mean(),
            low=_defined(difference.low),
            high=_defined(difference.high),
            p_value=_defined(p_value),
        )
        for ((tag, value), inside), difference, p_value in zip(members.items(), found, corrected.tolist(), strict=True)
    ]


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values corrected for their number by Holm's method, in the same order; NaN stays and does not count.

    Example:
        0.01, 0.04 and 0.03: the smallest is taken 3 times, the next 2 times, the last once, and none gets below the one
        before it: 0.03, 0.06 and 0.06.
    """
    corrected = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN are last
    times = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(1, times * p_values[order]))
    return corrected


def caption_length(texts: Sequence[str]) -> list[str]:
    """A tag by the number of words, which white space separates: `1-5 words` up to `over 20 words`; empty for none."""
    return [_length_name(len(text.split())) for text in texts]


def _length_name(words: int) -> str:
    if not words:
        return ""
    return next((name for longest, name in LENGTHS.items() if words <= longest), f"over {max(LENGTHS)} words")


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
