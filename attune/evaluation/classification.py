"""Accuracy figures of scores over classes, whatever gave the scores: prompts, a probe, neighbours.

Names and definitions are those of CLIP_benchmark (https://github.com/LAION-AI/CLIP_benchmark): *acc1* and *acc5* are the
shares of pictures whose class is first, or among the first five; *mean_per_class_recall* weighs all classes alike, however
many pictures they have. Ties count against the model: a wrong class that scores as high as the right one stands before it,
and so does one whose score is no number. Without ties the figures equal that package's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attune.errors import DataError


@dataclass(frozen=True)
class ClassFigures:
    """How one class fared.

    Attributes:
        name: of the class.
        images: its pictures.
        recall: share of its pictures that were taken for it, 0 to 1; None if it has none.
        precision: share of its own among the pictures that were taken for it, 0 to 1; None if there were none.
        confused_with: the other class that its pictures were most often taken for; None if all were recognised.
        confused: how many of its pictures were.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None
    confused_with: str | None
    confused: int


def classification_metrics(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """acc1, acc5 and mean_per_class_recall, 0 to 1; acc5 is NaN with fewer than five classes.

    Args:
        scores: float32 (queries, classes), higher is better.
        targets: the right class of each query, int64 (queries,).

    Raises:
        DataError: if there are no queries, or the targets are not a class for each of them.

    Example:
        Two pictures of class 0, one of them taken for class 1, and one of class 1 that is recognised: acc1 = 2/3, and
        mean_per_class_recall = (1/2 + 1) / 2.
    """
    figures = {name: float(np.mean(values)) for name, values in per_query(scores, targets).items()}
    return figures | {"mean_per_class_recall": mean_per_class_recall(predictions(scores, targets), targets)}


def per_query(scores: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """acc1 and acc5 of each query, 1 or 0: float64 (queries,). With fewer than five classes acc5 is NaN.

    Arguments and errors are those of `classification_metrics`.
    """
    rank = class_ranks(scores, targets)
    fifth = (rank <= 5) * 1.0 if scores.shape[1] >= 5 else np.full(len(rank), np.nan)
    return {"acc1": (rank <= 1) * 1.0, "acc5": fifth}


def predictions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The class that each query is taken for, int64 (queries,): the right one only if it scores above all others.

    Of several wrong classes with equal scores it is the first. Arguments and errors are those of `classification_metrics`.
    """
    wrong = np.flatnonzero(class_ranks(scores, targets) > 1)
    others = scores[wrong]
    others[np.arange(len(wrong)), targets[wrong]] = -np.inf
    found = targets.astype(np.int64)
    found[wrong] = others.argmax(axis=1)  # which takes what is no number for the highest
    return found


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """How many pictures of each class (row) were taken for each class (column): int64 (classes, classes)."""
    cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def mean_per_class_recall(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of the share of their pictures that were recognised, 0 to 1.

    Classes without pictures are left out, as in scikit-learn's `balanced_accuracy_score`, which CLIP_benchmark uses.
    """
    images = np.bincount(targets)
    right = np.bincount(targets[predicted == targets], minlength=len(images))
    return float(np.mean(right[images > 0] / images[images > 0]))


def class_table(confusion: np.ndarray, names: Sequence[str]) -> list[ClassFigures]:
    """The figures of each class, in their order.

    Args:
        confusion: see `confusion_matrix`.
        names: of the classes.
    """
    table = []
    for row, name in enumerate(names):
        images, taken, right = int(confusion[row].sum()), int(confusion[:, row].sum()), int(confusion[row, row])
        others = np.where(np.arange(len(names)) == row, 0, confusion[row])
        most = int(others.argmax())
        table.append(
            ClassFigures(
                name=name,
                images=images,
                recall=right / images if images else None,
                precision=right / taken if taken else None,
                confused_with=names[most] if others[most] else None,
                confused=int(others[most]),
            )
        )
    return table


def check_targets(targets: np.ndarray, queries: int, classes: int) -> None:
    """Checks that there is a class for each query.

    Raises:
        DataError: if there are no queries, not as many targets as queries, or a target that is none of the classes.
    """
    if not queries or len(targets) != queries:
        raise DataError(f"{queries} pictures and {len(targets)} class numbers: give one class number for each picture")
    outside = np.flatnonzero((targets < 0) | (targets >= classes))
    if len(outside):
        row = outside[0]
        raise DataError(
            f"{len(outside)} class numbers are not among the {classes} classes, which count from 0: the first is "
            f"{targets[row]}, of picture {row}. Name all classes, or leave these pictures out"
        )


def class_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The place of each query's right class, from 1, int64 (queries,): wrong ones that are not below it stand before it.

    Arguments and errors are those of `classification_metrics`.
    """
    check_targets(targets, len(scores), scores.shape[1])
    right = scores[np.arange(len(scores)), targets]
    # What is not below, and not what is at least as high: a score that is no number must not pass for a win.
    ranks: np.ndarray = scores.shape[1] - np.count_nonzero(scores < right[:, None], axis=1)
    return ranks
