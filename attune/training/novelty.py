"""How new the training data is to the starting model, by which the recipe tells how much of it there is to keep."""

import math
from dataclasses import replace

import numpy as np

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import measure
from attune.models.clip import Clip

MOST_ITEMS = 500
"""Items that are looked at: the mean of their log ranks is then right within a few hundredths."""

ENOUGH_ITEMS = 50


def novelty(clip: Clip, train: Pairs, cache: PixelCache | None, seed: int) -> float:
    """The mean log rank of right answers among those of some training pairs, as a share of what chance would give.

    Unlike a recall it says as much of a model that knows little as of one that knows much, and it hardly depends on how
    many answers there are. Log ranks are 0 for the first, and log(n!) / n on average if all n ranks are as likely.

    Args:
        clip: the starting model.
        train: pairs to learn from.
        cache: their pixels or embeddings.
        seed: of the choice.

    Returns:
        0 (each right answer comes first) to 1 (as by chance), to two decimals, mean over both directions. 0 too of what has
        no right answers to rank, which are single items and captions with scores, and of fewer than `ENOUGH_ITEMS`.
    """
    if train.is_graded or train.kind.is_single:
        return 0.0
    sample = _unlike(train, np.random.default_rng(seed))
    count = len(sample)
    if count < ENOUGH_ITEMS:
        return 0.0
    by_chance = math.lgamma(count + 1) / count
    found = [float(np.log(ranks).mean()) for ranks in measure(clip, sample, cache).ranks.values()]
    return min(1.0, round(sum(found) / len(found) / by_chance, 2))


def _unlike(train: Pairs, rng: np.random.Generator) -> Pairs:
    """Items of different groups with one caption each, no two the same: any of a class's would be a right answer."""
    chosen: dict[str, int] = {}
    groups: set[str] = set()
    for row in rng.permutation(len(train)).tolist():
        caption = train.captions[row][0].casefold()
        if caption not in chosen and train.groups[row] not in groups:
            chosen[caption] = row
            groups.add(train.groups[row])
        if len(chosen) == MOST_ITEMS:
            break
    sample = train.take(list(chosen.values()))
    return replace(sample, captions=[captions[:1] for captions in sample.captions])
