"""Examples of Parquet files, Hugging Face's and Attune's own among them, a page at a time."""

import json
import reprlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attune.data.cells import image_or_address, matches_of, no_text, numbers_of, text_example, text_of, texts_of
from attune.data.columns import (
    BELONGING_COLUMNS,
    CAPTION_COLUMNS,
    DOCUMENT_COLUMNS,
    EMBEDDING_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MATCH_COLUMNS,
    QUERY_COLUMNS,
    Columns,
    find_columns,
)
from attune.errors import DataError
from attune.schemas import TrainingExample

BATCH_BYTES = 8 * 2**20
"""Of a file that are read at a time, by the average of its rows."""


def read_parquet(parts: list[Path]) -> Iterator[TrainingExample]:
    """Examples of Parquet files, a row each; of matches that are no items of their own, as Attune stores them, none.

    Raises:
        DataError: if one is no such file, is damaged, or has no columns that can be used.
    """
    for part in parts:
        file = _open(part)
        schema = file.schema_arrow
        columns, is_stored = _columns(part, schema)
        classes = _class_names(schema)
        pictures = _stored_pictures(part) if is_stored and columns.of_matches else None
        number = 0
        for batch in _batches(file, part):
            nothing = [None] * len(batch)
            items, captions, scores, negatives, margins = (
                batch.column(column).to_pylist() if column >= 0 else nothing
                for column in (columns.item, columns.caption, columns.score, columns.negative, columns.margin)
            )
            stored = batch.column("text").to_pylist() if is_stored and "text" in schema.names else nothing
            said = {
                column: [_text(value, classes.get(schema.names[column], [])) for value in batch.column(column).to_pylist()]
                for column in (columns.group, columns.label, *columns.tags.values())
                if column >= 0
            }
            for row, (item, text, caption) in enumerate(zip(items, stored, captions, strict=True)):
                number += 1
                cells = {column: values[row] for column, values in said.items()}
                tags = columns.tags_in(cells)
                lists = {columns.caption: None if columns.of_matches else caption, columns.negative: negatives[row]}
                notes = (no_text(schema.names[column], cell, several=True) for column, cell in lists.items())
                source = f"{part.name}, row {number}" + "".join(f" ({note})" for note in notes if note)
                more = {
                    "captions": [] if columns.of_matches else texts_of(caption),
                    "scores": numbers_of(scores[row], columns.score >= 0 and not is_stored),
                    "negatives": texts_of(negatives[row]),
                    "margins": numbers_of(margins[row], bool(negatives[row]) and columns.margin >= 0),
                    "group": cells.get(columns.group, ""),
                    "label": cells.get(columns.label, ""),
                    "tags": _stored_tags(tags.get("tags", "")) if is_stored else tags,
                }
                if columns.of_matches:
                    if pictures is not None and caption is None:  # a match only
                        continue
                    others = caption if isinstance(caption, list) and not _is_vector(caption) else [caption]
                    others = others if pictures is None else [pictures.get(str(key), b"") for key in others]
                    more |= matches_of([image_or_address(one, part.parent) for one in others])
                if columns.of_texts or text:
                    cell = text or item
                    yield text_example(text_of(cell), source, no_text(schema.names[columns.item], cell), **more)
                    continue
                data, uri = image_or_address(item, part.parent)
                if isinstance(item, list) and not data:
                    source += f" ({schema.names[columns.item]!r} holds no row of numbers: {reprlib.repr(item)})"
                yield TrainingExample(image=data, uri=uri, source=source, **more)


def count_rows(path: Path) -> int:
    """How many rows a file has.

    Raises:
        DataError: if it is no Parquet file.
    """
    return int(_open(path).metadata.num_rows)


def _columns(part: Path, schema: pa.Schema) -> tuple[Columns, bool]:
    """What a file's columns hold, and whether it is a part of a dataset of Attune's own."""
    names: list[str] = schema.names
    plain = [column.name if _is_plain(column.type) else "" for column in schema]
    is_stored = {"image_sha256", "source"} <= set(plain)
    if is_stored:
        plain = ["" if name in ("image_sha256", "source", "text") else name for name in plain]
        names = ["" if name == "text" else name for name in names]  # an item's, and no caption
    for name, kind in zip(names, schema.types, strict=True):
        if name.strip().lower() == "group" and not _is_plain(kind):  # each row would be a group, and splits would leak
            raise _no_name(part, name, kind)
    columns = find_columns(names, plain)
    if columns is None:
        for name, kind in zip(names, schema.types, strict=True):
            if name.strip().lower() in LABEL_COLUMNS and not _is_plain(kind) and find_columns(names, names) is not None:
                raise _no_name(part, name, kind)
        raise DataError(
            f"{str(part)!r} has the columns {', '.join(names)}. An image column ({', '.join(IMAGE_COLUMNS)}) and a "
            f"caption column ({', '.join(CAPTION_COLUMNS)}) are needed; or, for pairs of pictures, one of matches "
            f"({', '.join(MATCH_COLUMNS)}); or, for embeddings, one of them ({', '.join(EMBEDDING_COLUMNS)}) and one of "
            f"their matches ({', '.join(BELONGING_COLUMNS)}); or, for pairs of texts, one of queries "
            f"({', '.join(QUERY_COLUMNS)}) and one of documents ({', '.join(DOCUMENT_COLUMNS)}); or, for single "
            f"pictures, texts or embeddings, one of labels ({', '.join(LABEL_COLUMNS)})"
        )
    return columns, is_stored


def _no_name(part: Path, column: str, kind: pa.DataType) -> DataError:
    """Of a column of groups, or of labels, that is of another type."""
    return DataError(
        f"{str(part)!r}: the column {column!r} holds {str(kind)[:200]}, and a group or a label is a text, a number or a "
        "date. Write it as one of these, or leave the column out"
    )


def _is_vector(value: list[Any]) -> bool:
    return any(isinstance(number, int | float) for number in value)


def _stored_pictures(part: Path) -> dict[str, bytes]:
    """The pictures of a part of a dataset of Attune's own, by their keys: it is no larger than what is sent at a time."""
    rows = _open(part).read(columns=["image_sha256", "image"]).to_pylist()
    return {str(row["image_sha256"]): image_or_address(row["image"], part.parent)[0] for row in rows}


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column holds texts, numbers or dates, or nothing at all."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    others = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_decimal, pa.types.is_null)
    return bool(pa.types.is_primitive(kind) or any(is_one(kind) for is_one in others))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of classes by column: Hugging Face's `ClassLabel` stores numbers, and the names in the file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if isinstance(kind, dict) and kind.get("names")}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):  # none, or not as Hugging Face writes it
        return {}


def _stored_tags(text: str) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except (AttributeError, ValueError, RecursionError):  # no dataset of Attune's, though its columns are named so
        return {}


def _text(value: Any, classes: list[str]) -> str:
    """A value as text; NaN is missing. A number of a class is its name; -1 stands for no class.

    Whole numbers are written alike, be they integers or not: pandas makes 1.0 of 1 where others in a column are missing.
    """
    if value is None or value != value or (classes and value == -1):
        return ""
    is_whole = isinstance(value, float | Decimal) and -(2**53) <= value <= 2**53 and value == value // 1
    said: Any = int(value) if is_whole else value
    return classes[said] if isinstance(said, int) and 0 <= said < len(classes) else str(said)


def _open(path: Path) -> pq.ParquetFile:
    try:
        # Without a buffer size all of a row group is in memory at once, and what is read ahead stays there to the end.
        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as Parquet ({error}). Write it again, or leave it out") from error


def _batches(file: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        metadata = file.metadata
        size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        yield from file.iter_batches(max(1, min(64, BATCH_BYTES * metadata.num_rows // max(1, size))))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is damaged ({error}). Write it again, or leave it out") from error
