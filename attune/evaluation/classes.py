"""The labels of a run's data as classes: what classification is measured on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attune.data.pairs import Pairs
from attune.data.parts import Parts

PROBE_PICTURES = 10_000
"""Pictures that probes learn from, and are chosen by, at most: more change a probe little, and each costs a forward pass."""


@dataclass(frozen=True)
class Classes:
    """Labelled pictures of each part.

    Attributes:
        names: of all classes, sorted, those without a held-out picture too; in lower case, underscores are spaces.
        rows: of the held-out pictures that have a label, int64.
        test: these pictures.
        train: labelled pictures a probe learns from; empty if nothing was trained, and for a part without labels.
        validation: labelled pictures that choose how strongly it is held back.
    """

    names: list[str]
    rows: np.ndarray
    test: Pairs
    train: Pairs
    validation: Pairs

    def targets(self, labels: Sequence[str]) -> np.ndarray:
        """The number of each label's class, int64 (labels,)."""
        number = {name: row for row, name in enumerate(self.names)}
        return np.asarray([number[_name(label)] for label in labels], dtype=np.int64)


def find_classes(parts: Parts, seed: int) -> Classes | None:
    """The classes of a run's data; None if there are no classes to tell apart.

    Labels that hardly repeat are names of single things, not classes: with more of them than half the labelled held-out
    pictures there are none either.

    Args:
        parts: of the run's data.
        seed: decides which training pictures a probe learns from, where there are more than `PROBE_PICTURES`.
    """
    rows, train, validation = (_labelled(pairs) for pairs in (parts.test, parts.train, parts.validation))
    test = parts.test.take(rows)
    seen = set(map(_name, test.labels))
    if len(seen) < 2 or 2 * len(seen) > len(test):
        return None
    rng = np.random.default_rng(seed)
    learnt, chosen = (
        pairs.take(np.sort(rng.choice(few, PROBE_PICTURES, replace=False)) if len(few) > PROBE_PICTURES else few)
        for pairs, few in ((parts.train, train), (parts.validation, validation))
    )
    names = sorted(seen.union(map(_name, learnt.labels), map(_name, chosen.labels)))
    return Classes(names, rows, test, learnt, chosen)


def classes_fingerprint(classes: Classes, prompts: Sequence[str]) -> str:
    """SHA-256 of the classes, the held-out pictures' labels and the prompts: what zero-shot figures depend on."""
    return hashlib.sha256(json.dumps([classes.names, classes.test.labels, prompts]).encode()).hexdigest()


def _name(label: str) -> str:
    """As a tokenizer reads it: prompts could not tell `Fire_Truck` from `fire truck`."""
    return " ".join(label.replace("_", " ").split()).lower()


def _labelled(pairs: Pairs) -> np.ndarray:
    return np.flatnonzero([bool(label) for label in pairs.labels])
