"""What users have, as training examples: a folder with captions.txt, CSV, Parquet, lists of documents.

Nothing here reads a whole dataset's pictures into memory: examples come one by one. Needs no torch, so the client
reads with it.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from docarray import DocList

from attune.errors import DataError
from attune.schemas import TrainingExample

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_IMAGE_COLUMNS = ("image", "file_name", "filepath", "image_path", "image_name", "filename", "path")
_CAPTION_COLUMNS = ("captions", "caption", "text", "title", "caption_text", "comment")

Source = str | Path | Iterable[TrainingExample]


def read_examples(source: Source, image_folder: str | Path | None = None) -> Iterator[TrainingExample]:
    """Examples from whatever the user gave.

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
        return len(_captions_by_image(path))
    if path.is_dir():
        captions = _captions_file(path)
        if captions is not None:
            return len(_captions_by_image(captions))
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
    rows = _captions_by_image(path)
    folder = image_folder or _image_folder(path, list(rows)[:100])
    for name, (line, captions) in rows.items():
        try:
            data = (folder / name).read_bytes()
        except OSError:
            data = b""
        source = f"{path.name}, line {line}" + ("" if data else f" ({folder / name}: no such file)")
        yield TrainingExample(image=data, captions=captions, source=source)


def _image_folder(path: Path, names: list[str]) -> Path:
    """Where most of these pictures are: beside the CSV, or in the `Images` folder of Kaggle's layout."""
    folders = (path.parent, path.parent / "Images", path.parent / "images")
    return max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))


def _captions_by_image(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Image path to the line it was first on and its captions: a picture's rows become one example.

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
    header = [cell.strip().lower() for cell in rows[0][1]]
    image = _find(header, _IMAGE_COLUMNS)
    caption = _find(header, _CAPTION_COLUMNS)
    if image is not None and caption is not None:
        rows = rows[1:]
        columns = len(header)
    else:
        image, caption = _columns_by_content(path, rows[0][1])
        columns = 2
    found: dict[str, tuple[int, list[str]]] = {}
    for line, row in rows:
        name = row[image].strip() if image < len(row) else ""
        text = row[caption] if caption < len(row) else ""
        if caption == columns - 1:
            text = delimiter.join(row[caption:])  # a caption with commas and no quotes, as in Kaggle's Flickr8k
        found.setdefault(name, (line, []))[1].append(text.strip())
    return found


def _columns_by_content(path: Path, row: list[str]) -> tuple[int, int]:
    image = [index for index, cell in enumerate(row) if cell.strip().lower().endswith(IMAGE_SUFFIXES)]
    if len(row) < 2 or not image:
        raise DataError(
            f"The first line of {str(path)!r} is {','.join(row)[:100]!r}: neither a header `image,caption` nor a row with "
            f"an image path ({', '.join(IMAGE_SUFFIXES)}). Add the header, or give two columns"
        )
    return image[0], 1 if image[0] == 0 else 0


def _read_parquet(parts: list[Path]) -> Iterator[TrainingExample]:
    for part in parts:
        file = _open_parquet(part)
        names = [name.lower() for name in file.schema_arrow.names]
        image, caption, group = _find(names, _IMAGE_COLUMNS), _find(names, _CAPTION_COLUMNS), _find(names, ("group",))
        if image is None or caption is None:
            raise DataError(
                f"{str(part)!r} has the columns {', '.join(names)}. An image column ({', '.join(_IMAGE_COLUMNS)}) and a "
                f"caption column ({', '.join(_CAPTION_COLUMNS)}) are needed"
            )
        number = 0
        for batch in file.iter_batches(64):
            for row in zip(*(batch.column(index).to_pylist() for index in range(batch.num_columns)), strict=True):
                number += 1
                yield TrainingExample(
                    image=_image_bytes(row[image], part.parent),
                    captions=_texts(row[caption]),
                    group="" if group is None or row[group] is None else str(row[group]),
                    source=f"{part.name}, row {number}",
                )


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


def _find(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)
