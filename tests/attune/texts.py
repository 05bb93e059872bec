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


def graded(count: int = 100, captions: int = 2) -> list[TrainingExample]:
    """The same queries with documents of other ones as well: the score is the share of words that are right, 0, 0.5 or 1."""
    kinds = list(itertools.product(MARKS, PLACES))
    chance = random.Random(1)
    chance.shuffle(kinds)
    found = []
    for number, (mark, place) in enumerate(kinds[:count], start=1):
        chosen = {}
        while len(chosen) < captions:
            right = (number + len(chosen)) % 3  # each score as often
            animal = MARKS[mark] if right else chance.choice([other for other in MARKS.values() if other != MARKS[mark]])
            colour = PLACES[place] if right == 2 else chance.choice([one for one in PLACES.values() if one != PLACES[place]])
            chosen[f"{colour} {animal}"] = right / 2
        found.append(
            TrainingExample(
                text=f"where is {mark} {place}?",
                captions=list(chosen),
                scores=list(chosen.values()),
                source=f"graded.csv, line {number}",
            )
        )
    return found


def with_negatives(count: int = 100, margins: bool = False) -> list[TrainingExample]:
    """The queries of `questions`, each with a document and two negatives, of which one word is right in the first alone."""
    examples = questions(count, documents=1)
    chance = random.Random(2)
    for example in examples:
        colour, animal = example.captions[0].split()
        wrong = chance.choice([one for one in PLACES.values() if one != colour])
        other = chance.choice([one for one in MARKS.values() if one != animal])
        example.negatives = [f"{wrong} {animal}", f"{wrong} {other}"]
        example.margins = [0.5, 1.0] if margins else []
    return examples
