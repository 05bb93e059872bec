"""What is sent to the search Flow."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attune.errors import DataError
from client.transport import Transport, wrong_service

if TYPE_CHECKING:
    from attune.schemas import SearchDocument


def encoded(
    transport: Transport, endpoint: str, documents: Sequence["SearchDocument"], parameters: dict[str, Any] | None = None
) -> list["SearchDocument"]:
    """What the search Flow gives for documents; each says which model encoded it.

    Raises:
        ServiceUnavailable: if the answer was encoded by none.
    """
    answer: list[SearchDocument] = transport.call(endpoint, documents, parameters)
    if len(answer) != len(documents) or not all(document.model for document in answer):
        raise wrong_service(transport, f"does not serve {endpoint}")
    return answer


def search_documents(examples: Iterable[Any]) -> Iterator["SearchDocument"]:
    """Examples as documents to index; those that are `SearchDocument`s already pass as they are.

    Of pairs of texts it is the captions that are looked for, and of pairs of pictures or embeddings the matches: each is a
    document, once for all that it belongs to. A match is shown with the label of its picture, or where that came from.
    Single items are documents themselves, a picture or an embedding with its label.
    """
    from attune.schemas import SearchDocument

    for example in examples:
        if isinstance(example, SearchDocument):
            yield example
            continue
        if example.text:
            for text in example.captions or [example.text]:
                yield SearchDocument(key=hashlib.sha256(text.encode()).hexdigest()[:16], text=text)
            continue
        if example.images:
            shown = example.label or example.source
            for image in filter(None, example.images):
                yield SearchDocument(key=hashlib.sha256(image).hexdigest()[:16], text=shown, image=image)
            continue
        text = example.captions[0] if example.captions else example.label
        key = example.source or hashlib.sha256(example.image + text.encode()).hexdigest()[:16]
        yield SearchDocument(key=key, text=text, image=example.image)


def search_query(query: "str | bytes | Path | Sequence[float]") -> "SearchDocument":
    """A text, an encoded picture or the path of one, or an embedding, as a query.

    Raises:
        DataError: if the path cannot be read.
    """
    from attune.schemas import SearchDocument

    if isinstance(query, str):
        return SearchDocument(text=query)
    if isinstance(query, bytes):
        return SearchDocument(image=query)
    if isinstance(query, Sequence) and query and all(isinstance(number, int | float) for number in query):
        return SearchDocument(embedding=[float(number) for number in query])
    if not isinstance(query, Path):
        raise DataError(
            f"The query is {repr(query)[:200]}: give a text, the bytes of a picture, its Path, or an embedding as a list of "
            "numbers"
        )
    try:
        return SearchDocument(image=query.read_bytes())
    except OSError as error:
        raise DataError(
            f"The picture {str(query)!r} cannot be read: {error.strerror}. Give the path of a picture"
        ) from error
