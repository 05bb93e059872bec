"""WordNet's synsets as training examples: definitions with their words."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attune.schemas import TrainingExample

FOLDER = Path(__file__).parent


def definitions() -> list[TrainingExample]:
    """What a word means, as a query, with the word and its synonyms as what is looked for, the commonest meanings first.

    A word is there once, with its commonest meaning: else it would be a wrong answer to another of its definitions.
    """
    seen: set[str] = set()
    found = []
    for row in _synsets():
        words = [word for word in row["words"] if word.lower() not in seen]
        seen.update(word.lower() for word in words)
        if words:
            found.append(TrainingExample(text=row["definition"], captions=words, label=row["category"]))
    return found


def actions() -> list[TrainingExample]:
    """Sentences that show a verb at work, labelled with what it is about; those of a meaning are a group."""
    seen: set[str] = set()
    found = []
    for row in _synsets():
        category = row["category"]
        for text in row["sentences"] if category.startswith("verb.") else ():
            if text.lower() not in seen:
                seen.add(text.lower())
                found.append(TrainingExample(text=text, label=category.removeprefix("verb."), group=row["definition"]))
    return found


def split(examples: list[TrainingExample], held_out: int) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Examples to train on, and about so many to measure on: those whose groups, or texts, have the smallest hashes."""
    order = sorted(examples, key=lambda example: hashlib.sha256(_group(example).encode()).digest())
    chosen = {_group(example) for example in order[:held_out]}
    train = [example for example in examples if _group(example) not in chosen]
    return train, [example for example in examples if _group(example) in chosen]


def _group(example: TrainingExample) -> str:
    return str(example.group or example.text)


def _synsets() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(FOLDER / "synsets.parquet").to_pylist()
    return rows
