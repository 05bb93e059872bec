"""Before and after, measured on one split with one code."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache, open_embeddings, open_pixels
from attune.errors import DataError
from attune.evaluation.correlation import correlations, similarities
from attune.evaluation.places import places
from attune.evaluation.ranking import ranks
from attune.evaluation.relevance import Relevance, from_labels
from attune.evaluation.retrieval import query_values
from attune.kinds import Kind, kind_of_names
from attune.metrics import AT_R, DIRECTIONS, retrieval_metrics
from attune.models.clip import Clip

MOST_ALIKE = 50_000_000
"""Pairs of single items with one label: each takes 24 bytes while they are ranked."""


@dataclass(frozen=True)
class Measurement:
    """A model's figures on a split, and what they were computed from.

    Attributes:
        metrics: see `attune.metrics.retrieval_metrics`; where captions have scores, `attune.evaluation.correlation`.
        ranks: see `attune.evaluation.ranking.ranks`; by the directions of the data's kind. None where captions have scores.
        images: embeddings, float32 (images, dim), or of the texts in the pictures' place.
        texts: embeddings, float32 (captions, dim), or of the pictures in the captions' place; (0, dim) of single items.
        at_r: of single items, the MAP@R of each query, float64 (queries,).
    """

    metrics: dict[str, float]
    ranks: dict[str, np.ndarray]
    images: np.ndarray
    texts: np.ndarray
    at_r: np.ndarray | None = None

    @property
    def kind(self) -> Kind:
        """Of what was measured on; `IMAGE` where captions have scores, and there are no ranks."""
        return kind_of_names(self.ranks)


def measure(clip: Clip, pairs: Pairs, cache: PixelCache | None) -> Measurement:
    """Embeds a split's pictures, or texts in their place, and all their captions, and ranks them against each other.

    Captions with scores are not ranked: similarities are set against the scores. Single items are ranked among themselves.
    """
    return measured(embed_items(clip, pairs, cache), embed_captions(clip, pairs, cache), pairs)


def measured(images: np.ndarray, texts: np.ndarray, pairs: Pairs) -> Measurement:
    """What `measure` says of a split's embeddings.

    Args:
        images: unit-length embeddings of the items, float32 (items, dim).
        texts: of their captions, float32 (captions, dim); of single items (0, dim).
        pairs: what belongs together.
    """
    if pairs.is_graded:
        of_scores = correlations(*similarities(images, texts, pairs)[:2])
        return Measurement({name: float(value) for name, (value,) in of_scores.items()}, {}, images, texts)
    if pairs.kind.is_single:
        found, asked = places(images, images, alike(pairs), exclude_self=True), pairs.kind.asked
        answered = found.right > 0
        named, at_r = {asked: found.best[answered].astype(np.int64)}, query_values(found)[AT_R][answered]
        metrics = retrieval_metrics(named) | {f"{asked}_{AT_R}": float(at_r.mean())}
        return Measurement(metrics, named, images, texts, at_r)
    rank = ranks(images, texts, image_of_text(pairs))
    named = {name: rank[direction] for name, direction in zip(pairs.kind.directions, DIRECTIONS, strict=True)}
    return Measurement(retrieval_metrics(named), named, images, texts)


def alike(pairs: Pairs) -> Relevance:
    """Of single items, those with the label of another are right answers to it.

    Raises:
        DataError: as `check_alike`.
    """
    check_alike(pairs)
    return from_labels(pairs.labels, pairs.labels, exclude_self=True)


def check_alike(pairs: Pairs) -> None:
    """Passes if data can be measured on: of single items, those of a label must be able to find each other.

    Raises:
        DataError: if no two share a label, or there are more than `MOST_ALIKE` pairs of them.
    """
    if not pairs.kind.is_single:
        return
    counts = np.unique([label for label in pairs.labels if label], return_counts=True)[1].astype(np.int64)
    if (number := int((counts * (counts - 1)).sum())) > MOST_ALIKE:
        raise DataError(
            f"The {len(pairs)} {pairs.kind.items} to measure on make {number:,} pairs of one label, and at most "
            f"{MOST_ALIKE:,} can be ranked. Give fewer: a smaller eval_data, val_data or eval_split, or more labels"
        )
    if not any(pairs.labels):
        raise DataError(
            f"The {len(pairs)} {pairs.kind.items} to measure on have no labels, so nothing says which belong together. What "
            "is trained on may be so; to judge by, give val_data and eval_data that have labels, captions or scores"
        )
    if not number:
        raise DataError(
            f"No two of the {len(pairs)} {pairs.kind.items} to measure on have the same label, so none has a right answer "
            "among the others. Hold out more, or give data whose labels come more than once, or data that has captions, as "
            "eval_data and val_data"
        )


def pixels_of(clip: Clip, pairs: Pairs) -> PixelCache | None:
    """The pixels of a dataset's pictures as a model takes them, or the embeddings in their place; None of texts."""
    if pairs.dimension:
        return open_embeddings(pairs.fingerprint)
    return None if pairs.kind.of_texts else open_pixels(pairs.fingerprint, clip.preprocess, clip.resize)


def embed_items(clip: Clip, pairs: Pairs, cache: PixelCache | None, batch_size: int = 256) -> np.ndarray:
    """Embeddings of the pictures, or of the texts in their place, float32 (items, dim).

    Args:
        clip: the model; its tower of the pairs' kind embeds.
        pairs: whose items.
        cache: from `pixels_of`; its pixels are read a few at a time.
        batch_size: items embedded at once.
    """
    if pairs.kind.of_texts:
        return clip.encode_texts(pairs.queries, batch_size)
    return _embed_pictures(clip, pairs.images, cache, batch_size)


def embed_captions(clip: Clip, pairs: Pairs, cache: PixelCache | None, batch_size: int = 256) -> np.ndarray:
    """Embeddings of all captions, or of the matches in their place, float32 (captions, dim); arguments as `embed_items`."""
    if pairs.kind.is_single:
        return np.empty((0, clip.config["embed_dim"]), dtype=np.float32)
    if not pairs.kind.has_matches:
        return clip.encode_texts(pairs.texts, batch_size)
    return _embed_pictures(clip, pairs.texts, cache, batch_size)


def _embed_pictures(clip: Clip, keys: list[str], cache: PixelCache | None, batch_size: int) -> np.ndarray:
    assert cache is not None  # there are pictures
    parts = np.array_split(cache.rows(keys), -(-len(keys) // batch_size))
    return np.concatenate([clip.encode_images(cache.pixels[part], batch_size) for part in parts])


def image_of_text(pairs: Pairs) -> np.ndarray:
    """For each caption, in order, the row of its picture: int64 (captions,)."""
    return np.repeat(np.arange(len(pairs)), [len(captions) for captions in pairs.captions])


def queries_of(pairs: Pairs) -> dict[str, np.ndarray]:
    """The row of each query's item, by direction, int64 (queries,): captions of one picture are not independent.

    Of single items, those whose label another one has are queries.
    """
    if pairs.kind.is_single:
        counts = Counter(pairs.labels)
        rows = [row for row, label in enumerate(pairs.labels) if label and counts[label] > 1]
        return dict.fromkeys(pairs.kind.directions, np.asarray(rows, dtype=np.int64))
    to_item, to_caption = pairs.kind.directions
    return {to_item: image_of_text(pairs), to_caption: np.arange(len(pairs))}


def split_fingerprint(pairs: Pairs) -> str:
    """SHA-256 of a split's pictures, or texts, captions and scores: figures with different ones must not be compared.

    Of single items, labels take the captions' place.
    """
    scores = [pairs.scores] if pairs.is_graded else []
    belonging = pairs.labels if pairs.kind.is_single else pairs.captions
    return hashlib.sha256(json.dumps([pairs.images, belonging, *scores]).encode()).hexdigest()
