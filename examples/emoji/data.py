"""The emoji pictures as training examples, and the 400 that are held out."""

import hashlib
from pathlib import Path

from attune.data.read import read_examples
from attune.schemas import TrainingExample

FOLDER = Path(__file__).parent
HELD_OUT = 400


def load(style: str) -> list[TrainingExample]:
    """All emoji in one style: `twemoji`, `openmoji` or `noto`."""
    return list(read_examples(FOLDER / f"{style}.parquet"))


def split(examples: list[TrainingExample]) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Examples to train on and `HELD_OUT` distinct pictures to measure on, apart by concept.

    Whole groups are taken in the order of a hash of their names, so the choice is the same in every style.
    """
    pictures: dict[str, set[bytes]] = {}
    for example in examples:
        pictures.setdefault(example.group, set()).add(example.image)
    chosen: set[str] = set()
    count = 0
    for group in sorted(pictures, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if count + len(pictures[group]) <= HELD_OUT:
            chosen.add(group)
            count += len(pictures[group])
    train = [example for example in examples if example.group not in chosen]
    return train, [example for example in examples if example.group in chosen]
