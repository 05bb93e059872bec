"""What cells of tables hold, as an example has it: a picture or its address, texts, numbers."""

from math import nan
from pathlib import Path
from typing import Any

from attune.data.embeddings import to_bytes
from attune.schemas import MAX_IMAGE_BYTES, TrainingExample


def matches_of(found: list[tuple[bytes, str]]) -> dict[str, Any]:
    """The fields of an example with these pictures, or their addresses, in the place of captions; one not there is empty."""
    return {
        "captions": [],
        "images": [data for data, uri in found if not uri],
        "uris": [uri for _, uri in found if uri],
    }


def text_example(text: str, source: str, **more: Any) -> TrainingExample:
    """An example of a text; where there is none, its source says so."""
    return TrainingExample(text=text, source=source if text.strip() else f"{source} (the query is empty)", **more)


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


def texts_of(value: object) -> list[str]:
    """Texts of a cell, one or several."""
    if value is None:
        return []
    return [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]


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
