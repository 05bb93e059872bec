"""Single pictures and texts with labels, for tests."""

import itertools
import random

from attune.schemas import TrainingExample
from tests.attune.texts import MARKS, PLACES
from tests.conftest import BACKGROUNDS, COLOURS, SHAPES, picture


def shapes(count: int = 192) -> list[TrainingExample]:
    """Coloured shapes in two sizes, labelled with the colour; at most 192, all different, always the same.

    Backgrounds, which are larger, say nothing of the label: a model has to learn what to look at.
    """
    kinds = list(itertools.product(COLOURS, SHAPES, BACKGROUNDS, ((40, 36), (52, 46))))
    random.Random(0).shuffle(kinds)
    return [
        TrainingExample(image=picture(*kind, size=size), label=kind[0], source=f"shapes/{number}.png")
        for number, (*kind, size) in enumerate(kinds[:count], start=1)
    ]


def sentences(count: int = 100, labelled: bool = True) -> list[TrainingExample]:
    """Sentences of two words each, labelled with what one of them stands for; at most 100, all different."""
    kinds = list(itertools.product(MARKS, PLACES))
    random.Random(0).shuffle(kinds)
    return [
        TrainingExample(text=f"where is {mark} {place}?", label=MARKS[mark] if labelled else "", source=f"line {number}")
        for number, (mark, place) in enumerate(kinds[:count], start=1)
    ]
