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
    if not any(parts.test.labels) or why_no_classes(parts):
        return None
    rows, train, validation = (_labelled(pairs) for pairs in (parts.test, parts.train, parts.validation))
    test = parts.test.take(rows)
    rng = np.random.default_rng(seed)
    learnt, chosen = (
        pairs.take(np.sort(rng.choice(few, PROBE_PICTURES, replace=False)) if len(few) > PROBE_PICTURES else few)
        for pairs, few in ((parts.train, train), (parts.validation, validation))
    )
    names = sorted({_name(label) for pairs in (test, learnt, chosen) for label in pairs.labels})
    return Classes(names, rows, test, learnt, chosen)


def why_no_classes(parts: Parts) -> str:
    """Why the labels of the held-out pictures are no classes, for a warning; empty if they are, or if there are none."""
    labels = [_name(label) for label in parts.test.labels if label]
    seen, kind = len(set(labels)), parts.test.kind
    said = f"{seen} label{'s' * (seen > 1)} on {len(labels)} labelled {kind.items if len(labels) > 1 else kind.item}"
    if seen == 1:
        return f"{said}: there is nothing to tell apart, so nothing is classified"
    if 2 * seen > len(labels):
        return f"{said}: more than half, taken for names and not for classes, so nothing is classified"
    return ""


def why_no_probe(classes: Classes, parts: Parts) -> str:
    """Why nothing can be learnt from labelled pictures; empty if it can."""
    if not len(parts.train):
        return "nothing was trained"
    without = [name for name, some in (("training", classes.train), ("validation", classes.validation)) if not len(some)]
    return f"no labels in the {' and the '.join(without)} part" if without else ""


def classes_fingerprint(classes: Classes, prompts: Sequence[str]) -> str:
    """SHA-256 of the classes, who has which label, and the prompts: what zero-shot figures depend on."""
    known = [classes.names, classes.rows.tolist(), classes.test.labels, prompts]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _name(label: str) -> str:
    """As a tokenizer reads it: prompts could not tell `Fire_Truck` from `fire truck`."""
    return " ".join(label.replace("_", " ").split()).lower()


def _labelled(pairs: Pairs) -> np.ndarray:
    return np.flatnonzero([bool(label) for label in pairs.labels])
