"""Batches that are small enough to send, one at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from client.events import RESTART_SECONDS
from client.transport import patiently

MAX_BATCH_BYTES = 8 * 2**20
DOCUMENT_BYTES = 512
"""What a document takes in a message besides its picture and its texts."""

NUMBER_BYTES = 16
"""Of a document's embedding: as JSON they take some 20, as a message 11."""


class _HasImage(Protocol):
    @property
    def image(self) -> bytes: ...


Document = TypeVar("Document", bound=_HasImage)


def batches(documents: Iterable[Document], max_documents: int, max_bytes: int = MAX_BATCH_BYTES) -> Iterator[list[Document]]:
    """Documents in order, in lists that stay under both limits. Holds one batch in memory.

    Args:
        documents: `TrainingExample`s or `SearchDocument`s.
        max_documents: documents in a batch.
        max_bytes: bytes of a batch; a document larger than that is a batch of its own.

    Example:
        Documents of 3, 3 and 9 MB with ``max_bytes=6_000_000`` give batches of 2 and 1.
    """
    batch: list[Document] = []
    total = 0
    for document in documents:
        size = _bytes(document)
        if batch and (len(batch) == max_documents or total + size > max_bytes):
            yield batch
            batch, total = [], 0
        batch.append(document)
        total += size
    if batch:
        yield batch


def _bytes(document: _HasImage) -> int:
    texts = [getattr(document, "text", ""), *getattr(document, "captions", []), *getattr(document, "negatives", [])]
    images = [document.image, *getattr(document, "images", [])]
    numbers = getattr(document, "embedding", [])
    return sum(map(len, images)) + sum(map(len, texts)) + NUMBER_BYTES * len(numbers) + DOCUMENT_BYTES


def numbered(examples: Iterable[Any]) -> Iterator[Any]:
    """The examples; those that do not say where they come from say their number, from 1."""
    for number, example in enumerate(examples, start=1):
        example.source = example.source or f"example {number}"
        yield example


def send_batches(documents: Iterable[Any], batch_size: int, send: Callable[[list[Any]], Any]) -> Iterator[tuple[int, Any]]:
    """Sends documents batch by batch and gives, for each batch, how many they were and what the service answered.

    Args:
        documents: as for `batches`.
        batch_size: documents in a batch, at most.
        send: sends one batch; it is called again with the same batch if the service is away for a moment.
    """
    # The first batch is sent once only, so that a service which is not there is reported at once.
    is_first = True
    for batch in batches(documents, batch_size):
        yield len(batch), send(batch) if is_first else patiently(partial(send, batch), RESTART_SECONDS)
        is_first = False
