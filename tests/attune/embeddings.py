"""Embeddings with others that belong to them, for tests."""

import numpy as np

from attune.schemas import TrainingExample

DIMENSION = 24
_KNOWN = 8  # numbers that tell what an item is; the others are larger, and tell nothing


def vectors(count: int = 96, matches: int = 1, seed: int = 0) -> np.ndarray:
    """Of each item its embedding and its matches', float32 (count, 1 + matches, dim); always the same.

    What they have in common is drowned in noise, in directions that are the same for all: a model has to find them.
    """
    rng = np.random.default_rng(seed)
    known = np.repeat(rng.normal(size=(count, 1, _KNOWN)), 1 + matches, axis=1)
    noise = rng.normal(size=(count, 1 + matches, DIMENSION - _KNOWN), scale=2)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(DIMENSION, DIMENSION))).Q
    return (np.concatenate([known, noise], axis=2) @ turn).astype(np.float32)


def notes(count: int = 96) -> list[TrainingExample]:
    """Single embeddings, with the labels of `sounds`."""
    return [example.model_copy(update={"embeddings": []}) for example in sounds(count)]


def sounds(count: int = 96, matches: int = 1) -> list[TrainingExample]:
    """The same as examples, each with one of four labels, by the signs of the first two numbers of what it is."""
    known = np.random.default_rng(0).normal(size=(count, 1, _KNOWN))[:, 0]
    return [
        TrainingExample(
            embedding=rows[0].tolist(),
            embeddings=[row.tolist() for row in rows[1:]],
            label=f"{'high' if own[0] > 0 else 'low'} {'loud' if own[1] > 0 else 'soft'}",
            source=f"sounds.parquet, row {number}",
        )
        for number, (rows, own) in enumerate(zip(vectors(count, matches), known, strict=True), start=1)
    ]
