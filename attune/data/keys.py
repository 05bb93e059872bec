"""The key of a batch of examples: the same wherever it is computed, so what is there already is not sent again."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Protocol


class Example(Protocol):
    """What a `TrainingExample` holds."""

    image: bytes
    uri: str
    text: str
    embedding: list[float]
    captions: list[str]
    images: list[bytes]
    embeddings: list[list[float]]
    uris: list[str]
    scores: list[float]
    negatives: list[str]
    margins: list[float]
    group: str
    label: str
    tags: dict[str, str]
    source: str


def batch_key(examples: Iterable[Example]) -> str:
    """Hexadecimal SHA-256 of all that the examples hold, in their order."""
    return hashlib.sha256(b"".join(map(_digest, examples))).hexdigest()


def _digest(example: Example) -> bytes:
    texts = [example.captions, example.group, example.label, example.tags, example.source]
    where: list[Any] = [example.uri, example.text] if example.text else [] if example.image else [example.uri]
    if example.images or example.uris:
        where.append([[hashlib.sha256(image).hexdigest() for image in example.images], example.uris])
    more = {
        name: value
        for name in ("scores", "negatives", "margins", "embedding", "embeddings")
        if (value := getattr(example, name))
    }
    said = json.dumps([*texts, *where, *([more] if more else [])], sort_keys=True)
    return hashlib.sha256(hashlib.sha256(example.image).digest() + said.encode()).digest()
