"""Before and after, measured on one split with one code."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache, open_pixels
from attune.evaluation.correlation import correlations, similarities
from attune.evaluation.ranking import ranks
from attune.kinds import MATCH, TEXT, Kind, kind_of_names
from attune.metrics import DIRECTIONS, retrieval_metrics
from attune.models.clip import Clip


@dataclass(frozen=True)
class Measurement:
    """A model's figures on a split, and what they were computed from.

    Attributes:
        metrics: see `attune.metrics.retrieval_metrics`; where captions have scores, `attune.evaluation.correlation`.
        ranks: see `attune.evaluation.ranking.ranks`; by the directions of the data's kind. None where captions have scores.
        images: embeddings, float32 (images, dim), or of the texts in the pictures' place.
        texts: embeddings, float32 (captions, dim), or of the pictures in the captions' place.
    """

    metrics: dict[str, float]
    ranks: dict[str, np.ndarray]
    images: np.ndarray
    texts: np.ndarray

    @property
    def kind(self) -> Kind:
        """Of what was measured on."""
        return kind_of_names(self.ranks)


def measure(clip: Clip, pairs: Pairs, cache: PixelCache | None) -> Measurement:
    """Embeds a split's pictures, or texts in their place, and all their captions, and ranks them against each other.

    Captions with scores are not ranked: similarities are set against the scores.
    """
    images, texts = embed_items(clip, pairs, cache), embed_captions(clip, pairs, cache)
    if pairs.is_graded:
        measured = correlations(*similarities(images, texts, pairs)[:2])
        return Measurement({name: float(value) for name, (value,) in measured.items()}, {}, images, texts)
    found = ranks(images, texts, image_of_text(pairs))
    named = {name: found[direction] for name, direction in zip(pairs.kind.directions, DIRECTIONS, strict=True)}
    return Measurement(retrieval_metrics(named), named, images, texts)


def pixels_of(clip: Clip, pairs: Pairs) -> PixelCache | None:
    """The pixels of a dataset's pictures as a model takes them; None of texts."""
    return None if pairs.kind is TEXT else open_pixels(pairs.fingerprint, clip.preprocess, clip.resize)


def embed_items(clip: Clip, pairs: Pairs, cache: PixelCache | None, batch_size: int = 256) -> np.ndarray:
    """Embeddings of the pictures, or of the texts in their place, float32 (items, dim).

    Args:
        clip: the model; its tower of the pairs' kind embeds.
        pairs: whose items.
        cache: from `pixels_of`; its pixels are read a few at a time.
        batch_size: items embedded at once.
    """
    if pairs.kind is TEXT:
        return clip.encode_texts(pairs.queries, batch_size)
    return _embed_pictures(clip, pairs.images, cache, batch_size)


def embed_captions(clip: Clip, pairs: Pairs, cache: PixelCache | None, batch_size: int = 256) -> np.ndarray:
    """Embeddings of all captions, or of the matches in their place, float32 (captions, dim); arguments as `embed_items`."""
    if pairs.kind is not MATCH:
        return clip.encode_texts(pairs.texts, batch_size)
    return _embed_pictures(clip, pairs.texts, cache, batch_size)


def _embed_pictures(clip: Clip, keys: list[str], cache: PixelCache | None, batch_size: int) -> np.ndarray:
    assert cache is not None  # there are pictures
    parts = np.array_split(cache.rows(keys), -(-len(keys) // batch_size))
    return np.concatenate([clip.encode_images(cache.pixels[part], batch_size) for part in parts])


def image_of_text(pairs: Pairs) -> np.ndarray:
    """For each caption, in order, the row of its picture: int64 (captions,)."""
    return np.repeat(np.arange(len(pairs)), [len(captions) for captions in pairs.captions])


def clusters_of(image_of_text: np.ndarray, directions: tuple[str, str] = DIRECTIONS) -> dict[str, np.ndarray]:
    """The picture of each query, by direction: captions of one picture are not independent."""
    to_item, to_caption = directions
    return {to_item: image_of_text, to_caption: np.unique(image_of_text)}


def split_fingerprint(pairs: Pairs) -> str:
    """SHA-256 of a split's pictures, or texts, captions and scores: figures with different ones must not be compared."""
    scores = [pairs.scores] if pairs.is_graded else []
    return hashlib.sha256(json.dumps([pairs.images, pairs.captions, *scores]).encode()).hexdigest()
