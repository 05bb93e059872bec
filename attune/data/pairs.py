"""A dataset as the Trainer and the Evaluator see it: pictures, their captions, their groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attune.data import store


@dataclass(frozen=True)
class Pairs:
    """Pictures and captions, row by row; the pictures themselves stay on disk.

    Attributes:
        fingerprint: the dataset they come from.
        images: SHA-256 of each picture's bytes; each picture is there once.
        captions: all captions of each picture.
        groups: each picture's group.
    """

    fingerprint: str
    images: list[str]
    captions: list[list[str]]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def texts(self) -> list[str]:
        """All captions, picture by picture."""
        return [text for captions in self.captions for text in captions]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pairs":
        """The pairs of these rows, in this order."""
        return Pairs(
            self.fingerprint,
            [self.images[row] for row in rows],
            [self.captions[row] for row in rows],
            [self.groups[row] for row in rows],
        )


def load_pairs(fingerprint: str) -> Pairs:
    """All pairs of a dataset. Rows with equal pictures become one, with the captions of all.

    The order depends on the content alone, not on how it was pushed.
    """
    captions: dict[str, list[str]] = {}
    groups: dict[str, str] = {}
    table = store.read_index(fingerprint)
    columns = (table[name].to_pylist() for name in ("image_sha256", "captions", "group"))
    for image, texts, group in sorted(zip(*columns, strict=True)):
        known = captions.setdefault(image, [])
        known += [text for text in texts if text not in known]
        groups.setdefault(image, group)
    return Pairs(fingerprint, list(captions), list(captions.values()), list(groups.values()))
