"""What users have, as training examples: a folder with captions.txt, CSV, Parquet, lists of documents; pairs as well.

Nothing here reads a whole dataset's pictures into memory: examples come one by one, and of a Parquet file a page at a
time. Needs no torch, so the client reads with it.
"""

import json
from collections.abc import Iterable, Iterator, Sized
from itertools import accumulate, chain, islice
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attune.data.columns import (
    BELONGING_COLUMNS,
    CAPTION_COLUMNS,
    DOCUMENT_COLUMNS,
    EMBEDDING_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MATCH_COLUMNS,
    QUERY_COLUMNS,
    find_columns,
)
from attune.data.csv_rows import IMAGE_SUFFIXES, count_items, read_said
from attune.data.embeddings import carried, to_bytes
from attune.errors import DataError
from attune.schemas import MAX_IMAGE_BYTES, TrainingExample

BATCH_BYTES = 8 * 2**20
"""Of a Parquet file that are read at a time, by the average of its rows."""

SAID = ("text", "captions", "scores", "negatives", "margins", "group", "label", "tags")
"""Fields of an example that say something of its picture, or are in its place."""

Source = str | Path | Iterable[TrainingExample]


def read_examples(
    source: Source, image_folder: str | Path | None = None, kinds: tuple[type, ...] = (TrainingExample,)
) -> Iterator[TrainingExample]:
    """Examples from whatever the user gave.

    Tables need an image and a caption column; or, of pairs of texts, a column of queries and one of their documents; or, of
    pairs of pictures, an image column and one of their matches; or, of embeddings, a column of them and one of their
    matches, as lists of numbers (Parquet) or as paths of `.npy` files: with a row for each pair that belongs together; or,
    of single pictures, texts or embeddings, one of these and one of labels. Of the others, `group` is the group, `label` (or
    `class`, or `category`) the label, and each one that has a name and plain values is a tag. Where rows of one picture or
    query differ in these, the first counts that says anything. `score` is the caption's score, `negative` a wrong answer,
    `margin` the negative's.

    Args:
        source: `DocList[TrainingExample]` or any iterable of them; a CSV file with columns `image,caption` (or none,
            then either order), `query,document` (or none) or `image,match` (or none); a folder that holds `captions.txt`
            (Kaggle's Flickr8k layout) or `captions.csv`; a Parquet file, or a folder of them; a folder with a folder of
            pictures for each label; a `.npy` file of embeddings (items, 1 + matches, dim). Where a table has an http(s)
            address instead of a picture, the service reads it, if its operator allows the host.
        image_folder: where a CSV's relative image paths start; by default the CSV's own folder, or `Images/` in it.
        kinds: what an iterable may hold.

    Raises:
        DataError: if it is none of these, or has no columns that can be used. A picture that cannot be read, or is too
            large to be sent, is no error here: its example comes without a picture and is reported with the rest.
    """
    if not isinstance(image_folder, str | Path | None):
        raise DataError(f"The image folder is {repr(image_folder)[:200]}: give the path of a folder")
    if isinstance(source, str | Path):
        return map(_small_enough, _read(source, image_folder))
    if not isinstance(source, Iterable) or isinstance(source, bytes | dict):
        raise DataError(f"The data is {repr(source)[:200]}: give a path, or {_one_of(kinds)}s")
    return (_small_enough(_carried(_checked(example, number, kinds))) for number, example in enumerate(source, start=1))


def _checked(example: Any, number: int, kinds: tuple[type, ...]) -> Any:
    if not isinstance(example, kinds):
        raise DataError(f"Example {number} is {repr(example)[:200]}: give a {_one_of(kinds)}")
    return example


def _carried(example: Any) -> Any:
    """The example with its embeddings as bytes: a quarter of what lists of numbers take on the way."""
    return carried(example) if isinstance(example, TrainingExample) else example


def _one_of(kinds: tuple[type, ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def _read(source: str | Path, image_folder: str | Path | None) -> Iterator[TrainingExample]:
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"There is no file or folder {str(path)!r}. Give the path of a CSV, a folder or a Parquet file")
    if path.is_dir():
        return _read_folder(path, image_folder)
    if path.suffix.lower() == ".parquet":
        return _read_parquet([path])
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    return _read_csv(path, Path(image_folder) if image_folder else None)


def _small_enough(example: TrainingExample) -> TrainingExample:
    """The example; without those of its pictures that make it too large to be sent. Its source then says so."""
    if not isinstance(example, TrainingExample):
        return example
    sizes = accumulate(map(len, (example.image, *example.images)))
    first, *others = (size <= MAX_IMAGE_BYTES for size in sizes)
    if first and all(others):
        return example
    what = "its pictures have" if example.images else "the picture has"
    note = f"{what} more than the {MAX_IMAGE_BYTES // 2**20} MiB that are accepted"
    said = {name: getattr(example, name) for name in (*SAID, "embedding", "embeddings", "uris")}
    images = [image if fits else b"" for image, fits in zip(example.images, others, strict=True)]
    image = example.image if first else b""
    return TrainingExample(image=image, images=images, **said, source=f"{example.source} ({note})".strip())


def count_examples(source: Source) -> int | None:
    """How many examples there will be, for a progress bar; None if that takes reading them all."""
    if not isinstance(source, str | Path):
        return len(source) if isinstance(source, Sized) else None
    path = Path(source).expanduser()
    if path.suffix.lower() == ".parquet" and path.is_file():
        return int(_open_parquet(path).metadata.num_rows)
    if path.suffix.lower() == ".npy" and path.is_file():
        return len(_open_npy(path))
    if path.suffix.lower() in (".csv", ".txt", ".tsv") and path.is_file():
        return count_items(path)
    if path.is_dir():
        captions = _captions_file(path)
        if captions is not None:
            return count_items(captions)
        parts = list(path.glob("*.parquet"))
        if not parts:
            return sum(1 for found in _class_folders(path) for _ in _pictures(found))
        return sum(int(_open_parquet(part).metadata.num_rows) for part in parts)
    return None


def _read_npy(path: Path) -> Iterator[TrainingExample]:
    """Examples of a table (items, 1 + matches, dim): of each item its embedding, and those that belong to it."""
    for number, rows in enumerate(_open_npy(path), start=1):
        first, *others = map(to_bytes, rows)
        yield TrainingExample(image=first, images=others, source=f"{path.name}, row {number}")


def _open_npy(path: Path) -> np.ndarray:
    try:
        table: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as NumPy's ({error}). Write it with numpy.save") from error
    if table.ndim != 3 or table.dtype.kind != "f":
        raise DataError(
            f"{str(path)!r} holds {table.dtype} of the shape {table.shape}: give floating-point numbers (items, "
            "1 + matches, dim), an item's embedding and those that belong to it; with labels or groups, a Parquet file"
        )
    return table


def _read_folder(folder: Path, image_folder: str | Path | None) -> Iterator[TrainingExample]:
    captions = _captions_file(folder)
    if captions is not None:
        return _read_csv(captions, Path(image_folder) if image_folder else None)
    parts = sorted(folder.glob("*.parquet"))
    if parts:
        return _read_parquet(parts)
    classes = [found for found in _class_folders(folder) if any(_pictures(found))]
    if classes:
        return _read_classes(classes)
    raise DataError(
        f"The folder {str(folder)!r} has no captions.txt, captions.csv or *.parquet, and no folders with pictures, one a "
        "class. Add captions.txt with lines `image,caption`"
    )


def _read_classes(folders: list[Path]) -> Iterator[TrainingExample]:
    """Single pictures, in a folder for each class: its name is their label, as for torchvision's `ImageFolder`."""
    for folder in folders:
        for path in _pictures(folder):
            data, _ = _image_or_address(path.name, folder)
            yield TrainingExample(image=data, label=folder.name, source=f"{folder.name}/{path.name}")


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _captions_file(folder: Path) -> Path | None:
    found = (folder / name for name in ("captions.txt", "captions.csv", "metadata.csv"))
    return next((path for path in found if path.is_file()), None)


def _read_csv(path: Path, image_folder: Path | None) -> Iterator[TrainingExample]:
    rows = read_said(path)
    first = list(islice(rows, 100))
    folder = image_folder or _image_folder(path, [said.item for said in first if not said.of_texts])
    for said in chain(first, rows):
        more = {name: getattr(said, name) for name in SAID if name != "text"}
        source = f"{path.name}, line {said.line}"
        if said.of_texts:
            yield _text_example(said.item, source, **more)
            continue
        data, uri = _image_or_address(said.item, folder)
        missing = [] if data or uri else [said.item]
        if said.of_matches:
            found = [_image_or_address(name, folder) for name in said.captions]
            missing += [name for name, there in zip(said.captions, found, strict=True) if not any(there)]
            more |= _matches(found)
        source += "".join(f" ({folder / name}: no such file)" for name in missing[:1])
        yield TrainingExample(image=data, uri=uri, source=source, **more)


def _matches(found: list[tuple[bytes, str]]) -> dict[str, Any]:
    """The fields of an example with these pictures, or their addresses, in the place of captions; one not there is empty."""
    return {
        "captions": [],
        "images": [data for data, uri in found if not uri],
        "uris": [uri for _, uri in found if uri],
    }


def _text_example(text: str, source: str, **more: Any) -> TrainingExample:
    """An example of a text; where there is none, its source says so."""
    return TrainingExample(text=text, source=source if text.strip() else f"{source} (the query is empty)", **more)


def _image_folder(path: Path, names: list[str]) -> Path:
    """Where most of these pictures are: beside the CSV, or in the `Images` folder of Kaggle's layout."""
    folders = (path.parent, path.parent / "Images", path.parent / "images")
    return max(folders, key=lambda folder: sum(_is_file(folder / name) for name in names))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long: an address, or a caption in the wrong column
        return False


def _read_parquet(parts: list[Path]) -> Iterator[TrainingExample]:
    for part in parts:
        file = _open_parquet(part)
        schema = file.schema_arrow
        names: list[str] = schema.names
        plain = [column.name if _is_plain(column.type) else "" for column in schema]
        is_stored = {"image_sha256", "source"} <= set(plain)  # a part of a dataset of Attune's own
        has_texts = is_stored and "text" in names
        if is_stored:
            plain = ["" if name in ("image_sha256", "source", "text") else name for name in plain]
            names = ["" if name == "text" else name for name in names]  # an item's, and no caption
        columns = find_columns(names, plain)
        if columns is None:
            raise DataError(
                f"{str(part)!r} has the columns {', '.join(names)}. An image column ({', '.join(IMAGE_COLUMNS)}) and a "
                f"caption column ({', '.join(CAPTION_COLUMNS)}) are needed; or, for pairs of pictures, one of matches "
                f"({', '.join(MATCH_COLUMNS)}); or, for embeddings, one of them ({', '.join(EMBEDDING_COLUMNS)}) and one of "
                f"their matches ({', '.join(BELONGING_COLUMNS)}); or, for pairs of texts, one of queries "
                f"({', '.join(QUERY_COLUMNS)}) and one of documents ({', '.join(DOCUMENT_COLUMNS)}); or, for single "
                f"pictures, texts or embeddings, one of labels ({', '.join(LABEL_COLUMNS)})"
            )
        classes = _class_names(schema)
        pictures = _stored_pictures(part) if is_stored and columns.of_matches else None
        number = 0
        for batch in _batches(file, part):
            items = batch.column(columns.item).to_pylist()
            captions = batch.column(columns.caption).to_pylist() if columns.caption >= 0 else [None] * len(items)
            stored = batch.column("text").to_pylist() if has_texts else [None] * len(items)
            lists = {
                name: batch.column(column).to_pylist() if column >= 0 else [None] * len(items)
                for name, column in (("scores", columns.score), ("negatives", columns.negative), ("margins", columns.margin))
            }
            texts = {
                column: [_text(value, classes.get(names[column], [])) for value in batch.column(column).to_pylist()]
                for column in (columns.group, columns.label, *columns.tags.values())
                if column >= 0
            }
            for row, (item, text, said) in enumerate(zip(items, stored, captions, strict=True)):
                number += 1
                cells = {column: values[row] for column, values in texts.items()}
                tags = columns.tags_in(cells)
                source = f"{part.name}, row {number}"
                more = {
                    "captions": [] if columns.of_matches else _texts(said),
                    "scores": _numbers(lists["scores"][row], columns.score >= 0 and not is_stored),
                    "negatives": _texts(lists["negatives"][row]),
                    "margins": _numbers(lists["margins"][row], bool(lists["negatives"][row]) and columns.margin >= 0),
                    "group": cells.get(columns.group, ""),
                    "label": cells.get(columns.label, ""),
                    "tags": _stored_tags(tags.get("tags", "")) if is_stored else tags,
                }
                if columns.of_matches:
                    if pictures is not None and said is None:  # a match only
                        continue
                    others = said if isinstance(said, list) and not _is_vector(said) else [said]
                    others = others if pictures is None else [pictures.get(str(key), b"") for key in others]
                    more |= _matches([_image_or_address(one, part.parent) for one in others])
                if columns.of_texts or text:
                    yield _text_example(_text(text or item, []), source, **more)
                    continue
                data, uri = _image_or_address(item, part.parent)
                yield TrainingExample(image=data, uri=uri, source=source, **more)


def _is_vector(value: list[Any]) -> bool:
    return any(isinstance(number, int | float) for number in value)


def _stored_pictures(part: Path) -> dict[str, bytes]:
    """The pictures of a part of a dataset of Attune's own, by their keys: it is no larger than what is sent at a time."""
    rows = _open_parquet(part).read(columns=["image_sha256", "image"]).to_pylist()
    return {str(row["image_sha256"]): _image_or_address(row["image"], part.parent)[0] for row in rows}


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column holds texts, numbers or dates."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
    """A value as text. A number of a class is its name; -1 stands for no class."""
    if value is None or (classes and value == -1):
        return ""
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else str(value)


def _open_parquet(path: Path) -> pq.ParquetFile:
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


def _image_or_address(value: object, folder: Path) -> tuple[bytes, str]:
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


def _embedding(numbers: list[Any]) -> bytes:
    """As it is sent; nothing of what are no numbers."""
    try:
        return to_bytes(numbers) if numbers else b""
    except (TypeError, ValueError):
        return b""


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    return [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]


def _numbers(value: object, wanted: bool) -> list[float]:
    """Numbers of a cell, one or several; NaN for what is none, and for nothing at all where one is wanted."""
    if value is None:
        return [nan] if wanted else []
    return [_number(one) for one in value] if isinstance(value, list | tuple) else [_number(value)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return nan
