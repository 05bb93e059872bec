"""Retrieval metrics as pure functions of ranks.

Which recall this is: CLIP papers and CLIP_benchmark call *recall@k* the share of queries with at least one right
answer among the first k. When a picture has five captions, finding one of them is a hit. (Textbook recall@k would be
the share of the five found.) All figures of Attune that are called recall@k are of the first kind.
"""

import numpy as np

DIRECTIONS = ("text_to_image", "image_to_text")
KS = (1, 5, 10)


def retrieval_metrics(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Recall@1/5/10, mean reciprocal rank and median rank of both directions.

    Args:
        found: what `attune.evaluation.ranking.ranks` returned.

    Returns:
        Names such as ``text_to_image_recall@5``. Recall and MRR are 0 to 1; a rank of 1 is best.

    Example:
        Ranks 1, 3 and 7 give recall@1 = 1/3, recall@5 = 2/3, recall@10 = 1, MRR = (1 + 1/3 + 1/7) / 3, median 3.
    """
    values: dict[str, float] = {}
    for direction in DIRECTIONS:
        rank = found[direction]
        for k in KS:
            values[f"{direction}_recall@{k}"] = float(np.mean(rank <= k))
        values[f"{direction}_mrr"] = float(np.mean(1 / rank))
        values[f"{direction}_median_rank"] = float(np.median(rank))
    return values


def mean_recall(metrics: dict[str, float]) -> float:
    """Mean of recall@1/5/10 over both directions: the one number by which a checkpoint is chosen."""
    return float(np.mean([metrics[f"{direction}_recall@{k}"] for direction in DIRECTIONS for k in KS]))


def difference_interval(
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    image_of_text: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, float]]:
    """95 % confidence interval of after minus before, by paired bootstrap over pictures.

    Whole pictures are drawn with replacement, with all their captions, and both models are scored on the same draw:
    captions of one picture are not independent, and a shared query is not two (Efron & Tibshirani 1993, chapter 6).

    Args:
        before: ranks of the starting model, from `attune.evaluation.ranking.ranks`.
        after: ranks of the trained one, on the same queries.
        image_of_text: as for `attune.evaluation.ranking.ranks`.
        resamples: draws.
        seed: of the draws.

    Returns:
        The 2.5 % and the 97.5 % point, by metric name; for recall and MRR of both directions.
    """
    image_count = len(before["image_to_text"])
    rng = np.random.default_rng(seed)
    names: list[str] = []
    sums: list[np.ndarray] = []  # of each metric's gain and of its queries, by picture
    for direction in DIRECTIONS:
        owner = image_of_text if direction == "text_to_image" else np.arange(image_count)
        gains = {f"recall@{k}": (after[direction] <= k) * 1.0 - (before[direction] <= k) for k in KS}
        gains["mrr"] = 1 / after[direction] - 1 / before[direction]
        for name, gain in gains.items():
            names.append(f"{direction}_{name}")
            sums += [np.bincount(owner, gain, image_count), np.bincount(owner, minlength=image_count)]
    table = np.stack(sums, axis=1)  # (images, 2 x metrics)
    share = np.full(image_count, 1 / image_count)
    totals = np.stack([rng.multinomial(image_count, share) @ table for _ in range(resamples)])
    low, high = np.percentile(totals[:, 0::2] / totals[:, 1::2], [2.5, 97.5], axis=0)
    return dict(zip(names, low.tolist(), strict=True)), dict(zip(names, high.tolist(), strict=True))
