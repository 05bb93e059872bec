"""Before and after, measured on one split with one code."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.ranking import ranks
from attune.metrics import retrieval_metrics
from attune.models.clip import Clip


@dataclass(frozen=True)
class Measurement:
    """A model's figures on a split, and what they were computed from.

    Attributes:
        metrics: see `attune.metrics.retrieval_metrics`.
        ranks: see `attune.evaluation.ranking.ranks`.
        images: embeddings, float32 (images, dim).
        texts: embeddings, float32 (captions, dim).
    """

    metrics: dict[str, float]
    ranks: dict[str, np.ndarray]
    images: np.ndarray
    texts: np.ndarray


def measure(clip: Clip, pairs: Pairs, cache: PixelCache) -> Measurement:
    """Embeds a split's pictures and all their captions, and ranks them against each other."""
    images = embed_images(clip, pairs, cache)
    texts = clip.encode_texts(pairs.texts)
    found = ranks(images, texts, image_of_text(pairs))
    return Measurement(retrieval_metrics(found), found, images, texts)


def embed_images(clip: Clip, pairs: Pairs, cache: PixelCache) -> np.ndarray:
    """Embeddings of the pictures, float32 (images, dim); their pixels are read a few at a time."""
    parts = np.array_split(cache.rows(pairs.images), -(-len(pairs) // 256))
    return np.concatenate([clip.encode_images(cache.pixels[part]) for part in parts])


def image_of_text(pairs: Pairs) -> np.ndarray:
    """For each caption, in order, the row of its picture: int64 (captions,)."""
    return np.repeat(np.arange(len(pairs)), [len(captions) for captions in pairs.captions])


def clusters_of(image_of_text: np.ndarray) -> dict[str, np.ndarray]:
    """The picture of each query, by direction: captions of one picture are not independent."""
    return {"text_to_image": image_of_text, "image_to_text": np.unique(image_of_text)}


def split_fingerprint(pairs: Pairs) -> str:
    """SHA-256 of a split's pictures and captions: figures with different ones must not be compared."""
    return hashlib.sha256(json.dumps([pairs.images, pairs.captions]).encode()).hexdigest()
