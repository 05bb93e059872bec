"""A dataset as the Trainer and the Evaluator see it: pictures or texts, what belongs to them, and what else is known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import nan
from typing import TypeVar

import numpy as np

from attune.data import store
from attune.data.shards import CONTENT, OPTIONAL
from attune.kinds import IMAGE, Kind, kind_of

T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Items and their captions, row by row. Items are pictures, which stay on disk, or texts in their place.

    What is said of pictures here and wherever pairs go holds of such texts as well, and what is said of captions of the
    matches in pairs of pictures, which are there by their SHA-256.

    Attributes:
        fingerprint: the dataset they come from.
        images: SHA-256 of each picture's bytes, or each text's; each is there once.
        captions: all captions of each picture; of pairs of pictures the SHA-256 of all its matches; of single items none.
        groups: each picture's group.
        labels: each picture's class; empty if it has none.
        tags: what else is known of each picture, by name.
        kind: whether items are pictures or texts, and captions texts or pictures.
        queries: the texts themselves, if they are; empty for pictures.
        scores: of each caption, as `captions`; empty if the data has none.
        negatives: texts that look right for each picture and are not; empty if the data has none.
        margins: of each negative, as `negatives`; empty if the data has none. See `attune.schemas.TrainingExample`.
        dimension: how many numbers each has of the embeddings that stand in the pictures' place; 0 of all others.
    """

    fingerprint: str
    images: list[str]
    captions: list[list[str]]
    groups: list[str]
    labels: list[str] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    kind: Kind = IMAGE
    queries: list[str] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    negatives: list[list[str]] = field(default_factory=list)
    margins: list[list[float]] = field(default_factory=list)
    dimension: int = 0

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
    def wrong_texts(self) -> list[str]:
        """All negatives, picture by picture."""
        return [text for negatives in self.negatives for text in negatives]

    @property
    def is_graded(self) -> bool:
        """Whether captions have scores, and so are neither right answers nor wrong ones."""
        return bool(self.scores)

    @property
    def names(self) -> list[str]:
        """Each item as a person reads it: a text as it is, a picture by its first caption, or by its key if it has none."""
        if self.kind.of_texts:
            return self.queries
        if self.kind is IMAGE:
            return [captions[0] for captions in self.captions]
        return [_short(key, label) for key, label in zip(self.images, self.labels, strict=True)]

    @property
    def caption_names(self) -> list[str]:
        """Each caption as a person reads it; a match by its key and the label of its picture."""
        if not self.kind.has_matches:
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
            _taken(self.queries, rows),
            _taken(self.scores, rows),
            _taken(self.negatives, rows),
            _taken(self.margins, rows),
            self.dimension,
        )

    def seen_as(self, kind: Kind) -> "Pairs":
        """The same items as data of another kind that the same tower embeds: with no captions, which are items if it does.

        To look for them among what was learnt; data of that kind stays as it is.
        """
        if self.kind is kind:
            return self
        if kind.of_texts:
            texts = list(dict.fromkeys([*self.queries, *self.texts]))
            keys = [sha256(text.encode()).hexdigest() for text in texts]
            return Pairs(self.fingerprint, keys, [[] for _ in keys], keys, kind=kind, queries=texts)
        matches = self.texts if self.kind.has_matches else []
        images = list(dict.fromkeys([*self.images, *matches]))
        return Pairs(self.fingerprint, images, [[] for _ in images], images, kind=kind, dimension=self.dimension)


def _taken(column: list[T], rows: Sequence[int] | np.ndarray) -> list[T]:
    """The values of these rows, if there are any at all."""
    return [column[row] for row in rows] if column else []


def load_pairs(fingerprint: str) -> Pairs:
    """All pairs of a dataset. Rows with equal pictures, or texts, become one, with the captions, negatives and tags of all.

    Where they differ in group, label, the value of a tag, a caption's score or a negative's margin, the first counts that
    has one; what is a caption in one row is no negative in another. Single items with several labels are left out, as
    `attune.data.contradictions` says. The order depends on the content alone, not on how it was pushed.
    """
    captions: dict[str, dict[str, float]] = {}  # with the score of each
    negatives: dict[str, dict[str, float]] = {}  # with the margin of each
    groups: dict[str, str] = {}
    labels: dict[str, str] = {}
    tags: dict[str, dict[str, str]] = {}
    contradictory = set[str]()
    table = store.read_index(fingerprint)
    columns = ([[] if value is None else value for value in table[name].to_pylist()] for name in CONTENT)
    of_group = CONTENT.index("group")
    rows = sorted(row for row in zip(*columns, strict=True) if row[of_group])  # others are matches only
    for image, texts, group, label, more, matches, scores, wrong, margins in rows:
        _add(captions.setdefault(image, {}), matches or texts, scores)
        _add(negatives.setdefault(image, {}), wrong, margins)
        groups.setdefault(image, group)
        if label and labels.get(image, "") not in ("", label):
            contradictory.add(image)
        labels[image] = labels.get(image) or label
        tags[image] = json.loads(more) | tags.get(image, {})
    for image, known in captions.items():
        negatives[image] = {text: margin for text, margin in negatives[image].items() if text not in known}
    there = {name for name in OPTIONAL if table[name].null_count < len(table)}
    dimension = store.read_dimension(fingerprint)
    texts_by_key = dict(zip(table["image_sha256"].to_pylist(), table["text"].to_pylist(), strict=True))
    pairs = Pairs(
        fingerprint,
        list(captions),
        [list(known) for known in captions.values()],
        list(groups.values()),
        list(labels.values()),
        list(tags.values()),
        kind_of(len(captions), "text" in there, "captions" in there, "matches" in there, dimension),
        [texts_by_key[key] for key in captions] if "text" in there else [],
        [list(known.values()) for known in captions.values()] if "scores" in there else [],
        [list(known) for known in negatives.values()] if "negatives" in there else [],
        [list(known.values()) for known in negatives.values()] if "margins" in there else [],
        dimension,
    )
    if not (contradictory and pairs.kind.is_single):
        return pairs
    return pairs.take([row for row, image in enumerate(pairs.images) if image not in contradictory])


def _add(known: dict[str, float], texts: list[str], numbers: list[float]) -> None:
    """Takes in texts, each with its number; the first number of a text counts, and where there are none it is NaN."""
    for text, number in zip(texts, numbers or [nan] * len(texts), strict=True):
        known.setdefault(text, number)


def _short(key: str, label: str) -> str:
    return f"{label} {key[:12]}".strip()


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of several datasets of one kind, one after the other: with no fingerprint of their own."""
    names = ("images", "captions", "groups", "labels", "tags", "queries")
    lists = {name: [row for pairs in parts for row in getattr(pairs, name)] for name in names}
    return Pairs("", kind=parts[0].kind, dimension=parts[0].dimension, **lists)
