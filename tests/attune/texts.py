"""Pairs of texts, for tests."""

import itertools
import random

from attune.schemas import TrainingExample

MARKS = {
    "alpha": "dog",
    "bravo": "cat",
    "cedar": "horse",
    "delta": "bird",
    "ember": "fish",
    "falcon": "mouse",
    "garnet": "lion",
    "harbor": "tiger",
    "indigo": "bear",
    "jasper": "wolf",
}
PLACES = {
    "<b>north</b>": "red",
    "south": "green",
    "east": "blue",
    "west": "yellow",
    "centre": "orange",
    "coast": "purple",
    "hill": "brown",
    "valley": "pink",
    "river": "white",
    "forest": "black",
}
"""No word of a query is in its documents: a model has to learn what they mean."""


def questions(count: int = 100, documents: int = 2) -> list[TrainingExample]:
    """Queries of two words, each of which stands for one in their documents; at most 100, all different, always the same.

    The label is one of the words.
    """
    kinds = list(itertools.product(MARKS, PLACES))
    random.Random(0).shuffle(kinds)
    return [
        TrainingExample(
            text=f"where is {mark} {place}?",
            captions=[f"{PLACES[place]} {MARKS[mark]}", f"a {MARKS[mark]}, all {PLACES[place]}"][:documents],
            label=mark,
            source=f"pairs.csv, line {number}",
        )
        for number, (mark, place) in enumerate(kinds[:count], start=1)
    ]
