"""The key of a batch of examples: the same wherever it is computed, so what is there already is not sent again."""

import hashlib
import json
from collections.abc import Iterable
from typing import Protocol


class Example(Protocol):
    """What a `TrainingExample` holds."""

    image: bytes
    uri: str
    text: str
    captions: list[str]
    group: str
    label: str
    tags: dict[str, str]
    source: str


def batch_key(examples: Iterable[Example]) -> str:
    """Hexadecimal SHA-256 of all that the examples hold, in their order."""
    return hashlib.sha256(b"".join(map(_digest, examples))).hexdigest()


def _digest(example: Example) -> bytes:
    texts = [example.captions, example.group, example.label, example.tags, example.source]
    where = [example.uri, example.text] if example.text else [] if example.image else [example.uri]
    said = json.dumps([*texts, *where], sort_keys=True)
    return hashlib.sha256(hashlib.sha256(example.image).digest() + said.encode()).digest()
