"""What cells of tables hold, as an example has it: a picture or its address, texts, numbers."""

import reprlib
from decimal import Decimal
from math import nan
from pathlib import Path
from typing import Any, TypeGuard

from attune.data.embeddings import to_bytes
from attune.schemas import MAX_IMAGE_BYTES, TrainingExample

_NO_TEXTS = {bool: "a truth value", bytes: "bytes", list: "a list", dict: "a struct"}


def matches_of(found: list[tuple[bytes, str]]) -> dict[str, Any]:
    """The fields of an example with these pictures, or their addresses, in the place of captions; one not there is empty."""
    return {
        "captions": [],
        "images": [data for data, uri in found if not uri],
        "uris": [uri for _, uri in found if uri],
    }


def text_example(text: str, source: str, wrong: str = "", **more: Any) -> TrainingExample:
    """An example of a text; where there is none, its source says so, or what is wrong with it instead."""
    wrong = wrong or ("" if text.strip() else "the query is empty")
    return TrainingExample(text=text, source=f"{source} ({wrong})" if wrong else source, **more)


def image_or_address(value: object, folder: Path) -> tuple[bytes, str]:
    """The picture of a Hugging Face image (`{bytes, path}`), plain bytes, a path or numbers; or the web address it is at."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, list):
        return _embedding(value), ""
    if isinstance(value, bytes):
        return value, ""
    if not isinstance(value, str) or not value:
        return b"", ""
    if value.lower().startswith(("http://", "https://")):
        return b"", value
    try:
        path = folder / value
        if not path.is_file():  # a FIFO or a device might never end
            return b"", ""
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1), ""
    except (OSError, ValueError):  # it may not be read, or its name cannot be one
        return b"", ""


def _embedding(row: list[Any]) -> bytes:
    """As it is sent; nothing of what are no numbers."""
    try:
        return to_bytes(row) if row else b""
    except (TypeError, ValueError):
        return b""


def text_of(value: object) -> str:
    """A cell's text; a number is one as it is written. Of anything else nothing: `no_text` says what is there."""
    return str(value) if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool) else ""


def texts_of(value: object) -> list[str]:
    """Texts of a cell, one or several; an empty one for what is none: the check of the example says so."""
    if value is None:
        return []
    return [text or "" for text in value] if _is_texts(value) else [text_of(value)]


def no_text(column: str, value: object, several: bool = False) -> str:
    """What a cell holds instead of a text, and what to do, as a note on its row; empty if all is well.

    Args:
        column: its name.
        value: of the cell; None, or an empty text, is missing and nothing wrong.
        several: whether it may be a list of texts.
    """
    if value is None or isinstance(value, str) or text_of(value) or (several and _is_texts(value)):
        return ""
    what = next((name for kind, name in _NO_TEXTS.items() if isinstance(value, kind)), f"a {type(value).__name__}")
    return f"{column!r} holds {what}, {reprlib.repr(value)}, and no text. Give a string"


def _is_texts(value: object) -> TypeGuard[list[str | None]]:
    return isinstance(value, list) and all(text is None or isinstance(text, str) for text in value)


def numbers_of(value: object, wanted: bool) -> list[float]:
    """Numbers of a cell, one or several; NaN for what is none, and for nothing at all where one is wanted."""
    if value is None:
        return [nan] if wanted else []
    return [number_of(one) for one in value] if isinstance(value, list | tuple) else [number_of(value)]


def number_of(value: Any) -> float:
    """A number, or NaN of what is none: the check of the example says so."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return nan
