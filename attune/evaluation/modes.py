"""The same places in the terms that others report, to set Attune's figures beside theirs.

==============  ==============================  ========================================================================
mode            whose figures                   what is counted
==============  ==============================  ========================================================================
clip_benchmark  LAION's CLIP_benchmark, and     share of queries with a right answer among the first k; "image
                CLIP papers                     retrieval" has texts as queries, "text retrieval" images
finetuner       Jina Finetuner's evaluation,    precision, recall, F1, hit, average precision, reciprocal rank and DCG
                by DocArray 0.21                of the first 20 answers, with DocArray's definitions
imageclef       captions of ImageCLEF's         reciprocal rank among the 64 answers of the query's own batch, not
                medical pictures                among all
==============  ==============================  ========================================================================

Everywhere ties count against the model, which none of the three asks for: with a tie, their figures depend on the
order in which answers happen to come.
"""

import numpy as np

from attune.errors import DataError
from attune.evaluation.places import Places
from attune.evaluation.ranking import ranks
from attune.metrics import KS

BATCH = 64
"""Queries of an ImageCLEF batch, and their answers."""

LIMIT = 20
"""Answers to each query that Finetuner looked at, if not told otherwise."""

CLIP_BENCHMARK = "Share of queries with at least one right answer among the first k, by the names of CLIP_benchmark."

FINETUNER = (
    f"The first {LIMIT} answers in the definitions of DocArray 0.21, which Jina Finetuner used: average precision is "
    "divided by the right answers found, not by all, and DCG takes nothing off in the second place."
)

IMAGECLEF = f"Rank of the one right answer among the {BATCH} of its batch: far easier to find than among all answers."


def clip_benchmark(found: Places, direction: str) -> dict[str, np.ndarray]:
    """Recall@1, 5 and 10 by the names of CLIP_benchmark, for each query: float64 (queries,), NaN without a right answer.

    Source: `clip_benchmark.metrics.zeroshot_retrieval` of https://github.com/LAION-AI/CLIP_benchmark.

    Args:
        found: where the right answers stand.
        direction: `text_to_image` gives `image_retrieval_recall@1` and so on; `image_to_text` `text_retrieval_recall@1`.

    Example:
        If the best right image of four texts stands in places 1, 2, 7 and 30, the mean image_retrieval_recall@5 is 2/4.
    """
    name = {"text_to_image": "image_retrieval", "image_to_text": "text_retrieval"}[direction]
    return {f"{name}_recall@{k}": np.where(found.right > 0, found.best <= k, np.nan) for k in KS}


def finetuner(found: Places, k: int = LIMIT) -> dict[str, np.ndarray]:
    """What Finetuner's EvaluationCallback reported, for each query: float64 (queries,), NaN without a right answer.

    Source: `docarray/math/evaluation.py` of https://github.com/docarray/docarray, version 0.21, on the first k answers.

    - `precision`: share of them that is right; of all answers where there are fewer than k.
    - `recall`: share of all right answers that is among them; `f1`: harmonic mean of both, 0 if both are.
    - `hit`: 1 if any is right.
    - `average_precision`: mean of the precision at the places of the right ones found, 0 if none is. Right answers beyond
      k do not lower it.
    - `reciprocal_rank`: 1 / place of the first right one, 0 if none is found.
    - `dcg`: 1 for a right one in place 1, and 1 / log2(place) from place 2, so places 1 and 2 count alike. Not divided by
      anything, and not by grades: right is right.

    Args:
        found: where the right answers stand.
        k: how many first answers were looked at.

    Example:
        Three answers are right; the first k = 5 hold two of them, in places 2 and 4. Precision is 2/5, recall 2/3, F1 1/2,
        average precision (1/2 + 2/4) / 2 = 1/2, reciprocal rank 1/2, DCG 1/log2(2) + 1/log2(4) = 1.5.
    """
    query, rank = found.relevance.query, found.rank
    right, best = found.right, found.best
    within = rank <= k

    def total(of_pairs: np.ndarray) -> np.ndarray:
        """Sum over each query's right answers that are found."""
        return np.bincount(query, of_pairs * within, minlength=len(right))

    hits = total(np.ones(len(query)))
    some = np.maximum(right, 1)
    values = {
        "precision": hits / min(k, found.gallery),
        "recall": hits / some,
        "f1": 2 * hits / (min(k, found.gallery) + some),  # 2pr / (p + r) with p = hits / k and r = hits / right
        "hit": (hits > 0) * 1.0,
        "average_precision": total(found.nth / rank) / np.maximum(hits, 1),
        "reciprocal_rank": (best <= k) / best,
        "dcg": total(1 / np.log2(np.maximum(rank, 2))),
    }
    return {name: np.where(right > 0, value, np.nan) for name, value in values.items()}


def imageclef(queries: np.ndarray, answers: np.ndarray, k: int = BATCH) -> np.ndarray:
    """Reciprocal ranks within batches of 64: float64 (queries,). Their mean is MRR@k.

    Queries are taken 64 at a time, in order, and compared with the 64 answers of the same rows; the last batch is what
    is left. Each query has one right answer, that of its own row.

    Args:
        queries: unit-length embeddings, float32 (queries, dim).
        answers: unit-length embeddings, float32 (queries, dim).
        k: a right answer after the first k counts 0.

    Raises:
        DataError: if there are not as many answers as queries.

    Example:
        With 65 pairs, the last one is alone in its batch and has 1, whatever the model.
    """
    if len(queries) != len(answers):
        raise DataError(
            f"there are {len(queries)} queries and {len(answers)} answers; in this mode query i has answer i and no other. "
            "Give one answer for each query"
        )
    rank = np.empty(len(queries))
    for start in range(0, len(queries), BATCH):
        part = slice(start, start + BATCH)
        rank[part] = ranks(answers[part], queries[part], np.arange(len(queries[part])))["text_to_image"]
    return (rank <= k) / rank
