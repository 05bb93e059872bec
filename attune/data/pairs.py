"""A dataset as the Trainer and the Evaluator see it: pictures or texts, what belongs to them, and what else is known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attune.data import store
from attune.data.shards import CONTENT
from attune.kinds import IMAGE, MATCH, TEXT, Kind


@dataclass(frozen=True)
class Pairs:
    """Items and their captions, row by row. Items are pictures, which stay on disk, or texts in their place.

    What is said of pictures here and wherever pairs go holds of such texts as well, and what is said of captions of the
    matches in pairs of pictures, which are there by their SHA-256.

    Attributes:
        fingerprint: the dataset they come from.
        images: SHA-256 of each picture's bytes, or each text's; each is there once.
        captions: all captions of each picture; of pairs of pictures the SHA-256 of all its matches.
        groups: each picture's group.
        labels: each picture's class; empty if it has none.
        tags: what else is known of each picture, by name.
        kind: whether items are pictures or texts, and captions texts or pictures.
        queries: the texts themselves, if they are; empty for pictures.
    """

    fingerprint: str
    images: list[str]
    captions: list[list[str]]
    groups: list[str]
    labels: list[str] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    kind: Kind = IMAGE
    queries: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Where none were given, every picture has an empty one, so that all lists go row by row.
        object.__setattr__(self, "labels", self.labels or [""] * len(self))
        object.__setattr__(self, "tags", self.tags or [{} for _ in self.images])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def texts(self) -> list[str]:
        """All captions, picture by picture; of pairs of pictures their keys."""
        return [text for captions in self.captions for text in captions]

    @property
    def names(self) -> list[str]:
        """Each item as a person reads it: a text as it is, a picture by its first caption, or by its key if it has none."""
        if self.kind is MATCH:
            return [_short(key, label) for key, label in zip(self.images, self.labels, strict=True)]
        return self.queries if self.kind is TEXT else [captions[0] for captions in self.captions]

    @property
    def caption_names(self) -> list[str]:
        """Each caption as a person reads it; a match by its key and the label of its picture."""
        if self.kind is not MATCH:
            return self.texts
        labelled = zip(self.captions, self.labels, strict=True)
        return [_short(key, label) for keys, label in labelled for key in keys]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pairs":
        """The pairs of these rows, in this order."""
        return Pairs(
            self.fingerprint,
            [self.images[row] for row in rows],
            [self.captions[row] for row in rows],
            [self.groups[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.tags[row] for row in rows],
            self.kind,
            [self.queries[row] for row in rows] if self.queries else [],
        )


def load_pairs(fingerprint: str) -> Pairs:
    """All pairs of a dataset. Rows with equal pictures, or texts, become one, with the captions and tags of all.

    Where they differ in group, label or the value of a tag, the first counts that has one. The order depends on the
    content alone, not on how it was pushed.
    """
    captions: dict[str, list[str]] = {}
    groups: dict[str, str] = {}
    labels: dict[str, str] = {}
    tags: dict[str, dict[str, str]] = {}
    table = store.read_index(fingerprint)
    rows = zip(*(table[name].to_pylist() for name in CONTENT), strict=True)
    for image, texts, group, label, more, matches in sorted(row for row in rows if row[1] or row[-1]):
        known = captions.setdefault(image, [])
        known += [text for text in matches or texts if text not in known]
        groups.setdefault(image, group)
        labels[image] = labels.get(image) or label
        tags[image] = json.loads(more) | tags.get(image, {})
    texts_of = list(captions.values())
    lists = list(captions), texts_of, list(groups.values()), list(labels.values()), list(tags.values())
    if table["matches"].null_count < len(table):
        return Pairs(fingerprint, *lists, MATCH)
    if table["text"].null_count:
        return Pairs(fingerprint, *lists)
    text_of = dict(zip(table["image_sha256"].to_pylist(), table["text"].to_pylist(), strict=True))
    return Pairs(fingerprint, *lists, TEXT, [text_of[key] for key in captions])


def _short(key: str, label: str) -> str:
    return f"{label} {key[:12]}".strip()


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of several datasets of one kind, one after the other: with no fingerprint of their own."""
    names = ("images", "captions", "groups", "labels", "tags", "queries")
    lists = {name: [row for pairs in parts for row in getattr(pairs, name)] for name in names}
    return Pairs("", kind=parts[0].kind, **lists)
