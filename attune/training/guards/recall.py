"""Whether the first stretch of training made the model clearly worse."""

import math
from collections import Counter
from collections.abc import Sequence

from attune.metrics import KS

LEAST_FALL = 0.02
"""Fall of mean recall that is no noise: many healthy runs lose a point before they gain."""

RELATIVE_FALL = 0.1
"""The same as a share of the start's."""

ENOUGH_PICTURES = 30
"""On fewer, a model that knows something cannot be told from chance by its recall."""

RATE_AFTER_FALL = 1 / 3
"""What the learning rate is multiplied by after such a fall."""


def is_chance(recall: float, pictures: int) -> bool:
    """Whether a mean recall@1/5/10 is no more than that of a model that knows nothing of these pictures.

    That finds k of `pictures` at random: (1 + 5 + 10) / 3 / pictures in the mean, here with three standard errors.

    Args:
        recall: over both directions, 0 to 1.
        pictures: that it was measured on. Of fewer than `ENOUGH_PICTURES` it is never said: chance finds most of them.

    Example:
        On 400 pictures chance is 16 / 1200 = 0.013, and up to 0.013 + 3 x sqrt(0.013 x 0.987 / 400) = 0.031 it may be.
    """
    if pictures < ENOUGH_PICTURES:
        return False
    chance = sum(min(1.0, k / pictures) for k in KS) / len(KS)
    return recall <= chance + 3 * math.sqrt(chance * (1 - chance) / pictures)


def is_uncorrelated(correlation: float, pairs: int) -> bool:
    """Whether Spearman's correlation of similarities with scores is no more than that of a model that knows nothing of them.

    Its standard error is then 1 / sqrt(pairs - 1) (Kendall & Gibbons 1990, Rank Correlation Methods, chapter 4); up to
    three of them are chance.

    Args:
        correlation: -1 to 1.
        pairs: that it was measured on. Of fewer than `ENOUGH_PICTURES` it is never said.

    Example:
        Of 401 pairs, up to 3 / sqrt(400) = 0.15 it may be chance.
    """
    return pairs >= ENOUGH_PICTURES and correlation <= 3 / math.sqrt(pairs - 1)


def is_unsorted(map_at_r: float, labels: Sequence[str]) -> bool:
    """Whether a MAP@R of single items is no more than that of a model that knows nothing of their labels.

    Of random answers the share that is right is that of the query's label, and the mean precision among the first is no
    higher.

    Args:
        map_at_r: 0 to 1.
        labels: of the items; "" is none.

    Example:
        Of two labels with 50 items each, 49 of 99 answers are right: up to 0.49 it may be chance.
    """
    counts = Counter(label for label in labels if label)
    queries = sum(count for count in counts.values() if count > 1)
    right = sum(count * (count - 1) for count in counts.values())
    return queries >= ENOUGH_PICTURES and map_at_r <= right / queries / (len(labels) - 1)


def first_check(start_recall: float, recall: float, pictures: int | None = None) -> bool:
    """Whether to go back to the start, once, with `RATE_AFTER_FALL` times the learning rate.

    For the first validation only. After a second fall training goes on: the best checkpoint is kept, the start among them.

    Args:
        start_recall: mean validation recall of the starting model, 0 to 1.
        recall: after the first stretch.
        pictures: in the validation part. If given, a fall must also exceed two standard errors of a share over so many:
            of 20 pictures, one that is found or not moves the mean by several points.

    Returns:
        True if the fall is clear. A recall that is no number is a fall.

    Example:
        From 0.60, anything below 0.54 is a clear fall; from 0.10, anything below 0.08. On 100 pictures 0.60 must fall
        by 2 x sqrt(0.6 x 0.4 / 100) = 0.098.
    """
    noise = 2 * math.sqrt(start_recall * (1 - start_recall) / pictures) if pictures else 0.0
    return not start_recall - recall <= max(LEAST_FALL, RELATIVE_FALL * start_recall, noise)
