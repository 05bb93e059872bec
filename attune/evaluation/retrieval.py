"""Retrieval metrics of queries with any number of right answers, query by query.

What each name means here, for a query with R right answers, and k first answers looked at:

- `hit@k`: 1 if at least one of them is right. CLIP papers call its mean recall@k, and so does `attune.metrics`.
- `recall@k`: the share of the R that is among them: textbook recall.
- `precision@k`: the share of the k that is right. It is divided by k even if there are fewer answers, as in trec_eval.
- `mrr@k`: 1 / place of the first right one, 0 if that is beyond k. (Its mean is the mean reciprocal rank.)
- `map@k`: precision at each right one's place, summed over those within k, divided by min(R, k), so that 1 can be
  reached for any k. With k at least the number of answers it is average precision.
- `ndcg@k`: the sum of grade / log2(1 + place) over right ones within k, divided by the best sum that can be reached: the
  linear gain of Järvelin & Kekäläinen (2002), as in trec_eval's ndcg_cut and scikit-learn. (2 ** grade - 1 is the same
  where all grades are 1.)
- `r_precision`: the share of the first R answers that is right.
- `map@r`: precision at the places of the right ones among the first R, summed and divided by R (Musgrave et al. 2020,
  arXiv:2003.08505).
- `rank`: the place of the best right one.

Ties count against the model. A query without a right answer has NaN everywhere, and counts in no mean. A k above the
number of answers looks at all of them.
"""

from collections.abc import Sequence

import numpy as np

from attune.errors import SettingsError
from attune.evaluation.places import Places
from attune.evaluation.relevance import counted_out
from attune.metrics import KS


def query_values(found: Places, ks: Sequence[int] = KS) -> dict[str, np.ndarray]:
    """All metrics of this module for each query, by name: float64 (queries,), NaN for queries without a right answer.

    Args:
        found: where the right answers stand.
        ks: how many first answers to look at; whole numbers from 1.

    Raises:
        SettingsError: if a k is less than 1.

    Example:
        A query has its two right answers, of grade 1, in places 1 and 4. At k = 5 hit is 1, recall 2/2, precision 2/5,
        mrr 1/1, map (1/1 + 2/4) / 2 = 0.75, and ndcg (1 + 1/log2(5)) / (1 + 1/log2(3)) = 0.877. Of the first R = 2
        answers one is right, so r_precision is 0.5.
    """
    too_small = [k for k in ks if k < 1]
    if too_small:
        raise SettingsError(f"ks = {list(ks)}: {too_small[0]} is less than 1. Use numbers of answers such as 1, 5, 10")
    query, grade, queries = found.relevance.query, found.relevance.grade, found.relevance.queries
    rank, right, best = found.rank, found.right, found.best
    some = np.maximum(right, 1)  # nothing is divided by 0; those without a right answer are taken out below

    def total(of_pairs: np.ndarray) -> np.ndarray:
        """Sum over each query's right answers."""
        return np.bincount(query, of_pairs, minlength=queries)

    precision = found.nth / rank  # at each right answer's place
    gain = grade / np.log2(1 + rank)
    first = counted_out(right) + 1  # where the right answers stand at best: the highest grade first
    best_gain = grade[np.lexsort((-grade, query))] / np.log2(1 + first)

    values = {}
    for k in ks:
        within = rank <= k
        values[f"hit@{k}"] = (best <= k) * 1.0
        values[f"recall@{k}"] = total(within) / some
        values[f"precision@{k}"] = total(within) / k
        values[f"mrr@{k}"] = (best <= k) / best
        values[f"map@{k}"] = total(precision * within) / np.minimum(some, k)
        values[f"ndcg@{k}"] = total(gain * within) / np.where(right, total(best_gain * (first <= k)), 1)
    values["r_precision"] = total(rank <= right[query]) / some
    values["map@r"] = total(precision * (rank <= right[query])) / some
    values["rank"] = best
    return {name: np.where(right > 0, value, np.nan) for name, value in values.items()}


def figures(found: Places) -> dict[str, float]:
    """What is no mean of `query_values`: `median_rank`, `mean_rank`, `tie_rate` and `queries_without_answer`.

    `tie_rate` is the share of queries of which a wrong answer scores exactly as high as a right one. Queries without a
    right answer are a number of their own, and left out of the other three.

    Example:
        Best places 1, 3, none and 8 give a mean_rank of 4, a median_rank of 3, and one query without a right answer.
    """
    answered = found.right > 0
    return {
        "median_rank": float(np.median(found.best[answered])),
        "mean_rank": float(found.best[answered].mean()),
        "tie_rate": float(found.tied[answered].mean()),
        "queries_without_answer": float((~answered).sum()),
    }
