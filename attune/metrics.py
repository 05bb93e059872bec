"""Retrieval metrics as pure functions of ranks.

Which recall this is: CLIP papers and CLIP_benchmark call *recall@k* the share of queries with at least one right
answer among the first k. When a picture has five captions, finding one of them is a hit. (Textbook recall@k would be
the share of the five found.) All figures of Attune that are called recall@k are of the first kind.
"""

import numpy as np

from attune.figures import chosen_by
from attune.kinds import IMAGE, kind_of_names

DIRECTIONS = IMAGE.directions
KS = (1, 5, 10)


AT_R = "map@r"
"""Of single items; see `attune.evaluation.retrieval`."""

OF_AT_R = (
    "map@r is the mean of the precision at the places of right answers among the first R, over R, which is how many right "
    "ones there are (Musgrave et al. 2020). "
)
"""What it means, for people."""


def retrieval_metrics(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Recall@1/5/10, mean reciprocal rank and median rank of both directions.

    Args:
        found: what `attune.evaluation.ranking.ranks` returned; of pairs under the names of `attune.kinds`.

    Returns:
        Names such as ``text_to_image_recall@5``. Recall and MRR are 0 to 1; a rank of 1 is best.

    Example:
        Ranks 1, 3 and 7 give recall@1 = 1/3, recall@5 = 2/3, recall@10 = 1, MRR = (1 + 1/3 + 1/7) / 3, median 3.
    """
    values: dict[str, float] = {}
    for direction, rank in found.items():
        for name, value in query_values(rank).items():
            values[f"{direction}_{name}"] = float(value.mean())
        values[f"{direction}_median_rank"] = float(np.median(rank))
    return values


def query_values(rank: np.ndarray) -> dict[str, np.ndarray]:
    """What each query counts for recall@1/5/10 (1 for a hit, else 0) and MRR (1 / rank): float64 (queries,) by metric.

    The metric is the mean over the queries; `attune.evaluation.bootstrap` says how sure it is.

    Args:
        rank: of each query's best right answer, from 1.
    """
    return {**{f"recall@{k}": (rank <= k).astype(np.float64) for k in KS}, "mrr": 1 / rank}


def worth(metrics: dict[str, float]) -> tuple[str, float]:
    """What a checkpoint is chosen by, with its name in `attune.figures.CHOSEN_BY`.

    Mean recall; `spearman` where captions have scores; of single items `map@r`: with few labels, some of the first ten
    answers are right whatever the model.
    """
    kind = kind_of_names(metrics)
    name = chosen_by(kind.is_single, "spearman" in metrics)
    if name == AT_R:
        return name, metrics[f"{kind.asked}_{AT_R}"]
    return name, metrics[name] if name in metrics else mean_recall(metrics)


def mean_recall(metrics: dict[str, float]) -> float:
    """Mean of recall@1/5/10 over both directions."""
    return float(
        np.mean([metrics[f"{direction}_recall@{k}"] for direction in kind_of_names(metrics).directions for k in KS])
    )
