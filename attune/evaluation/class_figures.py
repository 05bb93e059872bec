"""How well a model tells classes apart: by their names alone, by a linear probe, by neighbours."""

from dataclasses import asdict
from typing import Any

import numpy as np

from attune.evaluation.classes import Classes
from attune.evaluation.classification import (
    class_ranks,
    class_table,
    confusion_matrix,
    mean_per_class_recall,
    per_query,
    predictions,
)
from attune.evaluation.linear_probe import Features, linear_probe
from attune.evaluation.look import Look
from attune.evaluation.neighbours import neighbours
from attune.evaluation.tables import Figures

MOST_CLASSES = 40
"""Of a confusion matrix: a larger one would outgrow all else in the report, and nobody could read it."""

ACCURACY = (
    "acc1 and acc5 are the shares of pictures whose class is first, or among the first five; mean_per_class_recall weighs "
    "all classes alike. As CLIP_benchmark defines them; ties count against the model."
)


def class_figures(found: Look, classes: Classes, device: str = "cpu") -> list[Figures]:
    """The tables `zero_shot` and, if pictures with labels were trained on, `linear_probe` and `neighbours`.

    Of pairs of texts or of pictures the last two alone: prompts are for pictures with captions.

    Args:
        found: what a model makes of the data.
        classes: of the data.
        device: torch device that fits and compares.
    """
    targets = classes.targets(classes.test.labels)
    images = found.test.images[classes.rows]
    items = classes.test.kind.items
    accuracy = ACCURACY.replace("pictures", items)
    tables = []
    if found.scores is not None:
        prompted = f"Pictures are compared with prompts of their class's name; {len(classes.names)} classes. {ACCURACY}"
        tables.append(_figures("zero_shot", "Zero-shot classification", prompted, found.scores, targets, classes))
    if found.train is not None and found.validation is not None:
        train = Features(found.train, classes.targets(classes.train.labels))
        validation = Features(found.validation, classes.targets(classes.validation.labels))
        probe = linear_probe(train, validation, len(classes.names), device)
        near = neighbours(train.vectors, train.targets, images, len(classes.names), device=device)
        learnt = f"{len(classes.train)} training {items}"
        tables += [
            _figures(
                "linear_probe",
                "Linear probe",
                f"A logistic regression on the embeddings of {learnt}; the validation part chose its strength. {accuracy}",
                probe.scores(images),
                targets,
                classes,
            ),
            _figures(
                "neighbours",
                "Nearest neighbours",
                f"Votes of the 20 nearest of {learnt}, weighted by exp(cosine / 0.07). {accuracy}",
                near,
                targets,
                classes,
            ),
        ]
    return tables


def zero_shot_ranks(found: Look, classes: Classes) -> np.ndarray:
    """The place of the right class of each labelled held-out picture, from 1: int64 (pictures,)."""
    return class_ranks(_scores(found), classes.targets(classes.test.labels))


def zero_shot_facts(found: Look, classes: Classes, prompts: list[str]) -> dict[str, Any]:
    """What figures of zero-shot classification are to be seen beside, and the figures class by class.

    `chance` is the share that guessing gets right, `majority` that of the largest class; there is a `confusion` matrix of up
    to `MOST_CLASSES` classes.
    """
    targets = classes.targets(classes.test.labels)
    confusion = confusion_matrix(predictions(_scores(found), targets), targets, len(classes.names))
    return {
        "prompts": prompts,
        "chance": 1 / len(classes.names),
        "majority": float(np.bincount(targets).max() / len(targets)),
        "classes": [asdict(one) for one in class_table(confusion, classes.names)],
        "confusion": confusion.tolist() if len(classes.names) <= MOST_CLASSES else [],
    }


def _scores(found: Look) -> np.ndarray:
    assert found.scores is not None  # there are classes
    return found.scores


def _figures(name: str, title: str, definition: str, scores: np.ndarray, targets: np.ndarray, classes: Classes) -> Figures:
    return Figures(
        name,
        title,
        definition,
        [(per_query(scores, targets), classes.rows)],
        {"mean_per_class_recall": mean_per_class_recall(predictions(scores, targets), targets)},
    )
