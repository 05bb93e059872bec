"""What users have, as training examples: a folder with captions.txt, CSV, Parquet, lists of documents.

Nothing here reads a whole dataset's pictures into memory: examples come one by one. Needs no torch, so the client
reads with it.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from docarray import DocList

from attune.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, Columns, find_columns
from attune.errors import DataError
from attune.schemas import TrainingExample

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

Source = str | Path | Iterable[TrainingExample]


def read_examples(source: Source, image_folder: str | Path | None = None) -> Iterator[TrainingExample]:
    """Examples from whatever the user gave.

    Tables need an image and a caption column. Of the others, `group` is the group, `label` (or `class`, or `category`) the
    label, and each one that has a name and plain values is a tag. Where rows of one picture differ in these, the first
    counts that says anything.

    Args:
        source: `DocList[TrainingExample]` or any iterable of them; a CSV file with columns `image,caption` (or none,
            then either order); a folder that holds `captions.txt` (Kaggle's Flickr8k layout) or `captions.csv`;
            a Parquet file, or a folder of them.
        image_folder: where a CSV's relative image paths start; by default the CSV's own folder, or `Images/` in it.

    Raises:
        DataError: if it is none of these, or has no columns that can be used. A picture that cannot be read is no
            error here: its example comes without a picture and is reported with the rest.
    """
    if not isinstance(source, str | Path):
        return iter(source)
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"There is no file or folder {str(path)!r}. Give the path of a CSV, a folder or a Parquet file")
    if path.is_dir():
        return _read_folder(path, image_folder)
    if path.suffix.lower() == ".parquet":
        return _read_parquet([path])
    return _read_csv(path, Path(image_folder) if image_folder else None)


def count_examples(source: Source) -> int | None:
    """How many examples there will be, for a progress bar; None if that takes reading them all."""
    if isinstance(source, DocList | list | tuple):
        return len(source)
    path = Path(str(source)).expanduser()
    if path.suffix.lower() == ".parquet" and path.is_file():
        return int(_open_parquet(path).metadata.num_rows)
    if path.suffix.lower() in (".csv", ".txt", ".tsv") and path.is_file():
        return len(_rows_by_image(path))
    if path.is_dir():
        captions = _captions_file(path)
        if captions is not None:
            return len(_rows_by_image(captions))
        return sum(int(_open_parquet(part).metadata.num_rows) for part in path.glob("*.parquet"))
    return None


def _read_folder(folder: Path, image_folder: str | Path | None) -> Iterator[TrainingExample]:
    captions = _captions_file(folder)
    if captions is not None:
        return _read_csv(captions, Path(image_folder) if image_folder else None)
    parts = sorted(folder.glob("*.parquet"))
    if parts:
        return _read_parquet(parts)
    raise DataError(
        f"The folder {str(folder)!r} has no captions.txt, captions.csv or *.parquet. "
        "Add captions.txt with lines `image,caption`"
    )


def _captions_file(folder: Path) -> Path | None:
    found = (folder / name for name in ("captions.txt", "captions.csv", "metadata.csv"))
    return next((path for path in found if path.is_file()), None)


def _read_csv(path: Path, image_folder: Path | None) -> Iterator[TrainingExample]:
    rows = _rows_by_image(path)
    folder = image_folder or _image_folder(path, list(rows)[:100])
    for name, said in rows.items():
        try:
            data = (folder / name).read_bytes()
        except OSError:
            data = b""
        source = f"{path.name}, line {said.line}" + ("" if data else f" ({folder / name}: no such file)")
        yield TrainingExample(
            image=data, captions=said.captions, group=said.group, label=said.label, tags=said.tags, source=source
        )


def _image_folder(path: Path, names: list[str]) -> Path:
    """Where most of these pictures are: beside the CSV, or in the `Images` folder of Kaggle's layout."""
    folders = (path.parent, path.parent / "Images", path.parent / "images")
    return max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))


@dataclass(slots=True)
class _Said:
    """What the rows of a CSV say of one picture, and the line of the first."""

    line: int
    captions: list[str] = field(default_factory=list)
    group: str = ""
    label: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def _rows_by_image(path: Path) -> dict[str, _Said]:
    """What is said of each image path: a picture's rows become one example.

    Without a header the image column is the one whose values look like image files.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            sample = file.read(4096)
            file.seek(0)
            delimiter = "\t" if sample.count("\t") > sample.count(",") else ","
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} is not a CSV file in UTF-8 ({error}). Save it as CSV in UTF-8") from error
    if not rows:
        raise DataError(f"{str(path)!r} is empty. Give lines `image,caption`")
    first = rows[0][1]
    columns = find_columns(first, first)
    if columns is not None:
        rows, width = rows[1:], len(first)
    else:
        columns = _columns_by_content(path, first)
        width = len(first) if columns.image else 2
    found: dict[str, _Said] = {}
    for line, row in rows:
        # A caption with commas and no quotes, as in Kaggle's Flickr8k, takes the cells that are too many.
        end = columns.caption + 1 + max(0, len(row) - width)
        row = [*row[: columns.caption], delimiter.join(row[columns.caption : end]), *row[end:]]
        cells = dict(enumerate(cell.strip() for cell in row))
        said = found.setdefault(cells.get(columns.image, ""), _Said(line))
        said.captions.append(cells.get(columns.caption, ""))
        said.group = said.group or cells.get(columns.group, "")
        said.label = said.label or cells.get(columns.label, "")
        said.tags = columns.tags_in(cells) | said.tags
    return found


def _columns_by_content(path: Path, row: list[str]) -> Columns:
    image = [index for index, cell in enumerate(row) if cell.strip().lower().endswith(IMAGE_SUFFIXES)]
    if len(row) < 2 or not image:
        raise DataError(
            f"The first line of {str(path)!r} is {','.join(row)[:100]!r}: neither a header `image,caption` nor a row with "
            f"an image path ({', '.join(IMAGE_SUFFIXES)}). Add the header, or give two columns"
        )
    return Columns(image[0], 1 if image[0] == 0 else 0, -1, -1, {})


def _read_parquet(parts: list[Path]) -> Iterator[TrainingExample]:
    for part in parts:
        file = _open_parquet(part)
        schema = file.schema_arrow
        names: list[str] = schema.names
        plain = [column.name if _is_plain(column.type) else "" for column in schema]
        is_stored = {"image_sha256", "source"} <= set(plain)  # a part of a dataset of Attune's own
        if is_stored:
            plain = ["" if name in ("image_sha256", "source") else name for name in plain]
        columns = find_columns(names, plain)
        if columns is None:
            raise DataError(
                f"{str(part)!r} has the columns {', '.join(names)}. An image column ({', '.join(IMAGE_COLUMNS)}) and a "
                f"caption column ({', '.join(CAPTION_COLUMNS)}) are needed"
            )
        classes = _class_names(schema)
        number = 0
        for batch in file.iter_batches(64):
            images, captions = (batch.column(column).to_pylist() for column in (columns.image, columns.caption))
            texts = {
                column: [_text(value, classes.get(names[column], [])) for value in batch.column(column).to_pylist()]
                for column in (columns.group, columns.label, *columns.tags.values())
                if column >= 0
            }
            for row, (image, said) in enumerate(zip(images, captions, strict=True)):
                number += 1
                cells = {column: values[row] for column, values in texts.items()}
                tags = columns.tags_in(cells)
                yield TrainingExample(
                    image=_image_bytes(image, part.parent),
                    captions=_texts(said),
                    group=cells.get(columns.group, ""),
                    label=cells.get(columns.label, ""),
                    tags=json.loads(tags.get("tags", "{}")) if is_stored else tags,
                    source=f"{part.name}, row {number}",
                )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column holds texts, numbers or dates."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of classes by column: Hugging Face's `ClassLabel` stores numbers, and the names in the file's metadata."""
    stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = stored.get("info", {}).get("features", {})
    return {name: kind["names"] for name, kind in features.items() if isinstance(kind, dict) and kind.get("names")}


def _text(value: Any, classes: list[str]) -> str:
    """A value as text. A number of a class is its name; -1 stands for no class."""
    if value is None or (classes and value == -1):
        return ""
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else str(value)


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as Parquet ({error}). Write it again, or leave it out") from error


def _image_bytes(value: object, folder: Path) -> bytes:
    """From a Hugging Face image (`{bytes, path}`), plain bytes, or a path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    path = folder / value if isinstance(value, str) and value else None
    return path.read_bytes() if path is not None and path.is_file() else b""


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    return [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]
