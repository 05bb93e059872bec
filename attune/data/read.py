"""What users have, as training examples: a folder with captions.txt, CSV, Parquet, lists of documents; pairs as well.

Nothing here reads a whole dataset's pictures into memory: examples come one by one, and of a Parquet file a page at a
time. Needs no torch, so the client reads with it.
"""

from collections.abc import Iterable, Iterator, Sized
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from attune.data import npy_rows, parquet_rows
from attune.data.cells import image_or_address, matches_of, text_example
from attune.data.csv_rows import IMAGE_SUFFIXES, count_items, read_said
from attune.data.embeddings import carried
from attune.errors import DataError
from attune.schemas import MAX_IMAGE_BYTES, TrainingExample

SAID = ("text", "captions", "scores", "negatives", "margins", "group", "label", "tags")
"""Fields of an example that say something of its picture, or are in its place."""

NO_CLASSES = ("train", "training", "test", "val", "valid", "validation", "dev", "images")
"""Folders of these names hold parts of a dataset, or all of its pictures."""

TABLES = (".csv", ".tsv", ".jsonl")
"""Files that say something of pictures beside them."""

JSON = (".json", ".jsonl", ".ndjson")

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
        return parquet_rows.read_parquet([path])
    if path.suffix.lower() == ".npy":
        return npy_rows.read_npy(path)
    if path.suffix.lower() in JSON:
        raise DataError(
            f"{str(path)!r} is a file of JSON, and those are not read: its braces would be taken for texts. Write it as "
            "Parquet, such as pandas.read_json(path, lines=True).to_parquet(...), or as CSV"
        )
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
        return parquet_rows.count_rows(path)
    if path.suffix.lower() == ".npy" and path.is_file():
        return npy_rows.count_rows(path)
    if path.suffix.lower() in (".csv", ".txt", ".tsv") and path.is_file():
        return count_items(path)
    if path.is_dir():
        captions = _captions_file(path)
        if captions is not None:
            return count_items(captions)
        parts = list(path.glob("*.parquet"))
        if not parts:
            return sum(1 for found in _class_folders(path) for _ in _pictures(found))
        return sum(parquet_rows.count_rows(part) for part in parts)
    return None


def _read_folder(folder: Path, image_folder: str | Path | None) -> Iterator[TrainingExample]:
    captions = _captions_file(folder)
    if captions is not None:
        return _read_csv(captions, Path(image_folder) if image_folder else None)
    parts = sorted(folder.glob("*.parquet"))
    if parts:
        return parquet_rows.read_parquet(parts)
    classes = [found for found in _class_folders(folder) if any(_pictures(found))]
    split = [found.name for found in classes if found.name.lower() in NO_CLASSES]
    tables = [path.name for path in folder.iterdir() if path.suffix.lower() in TABLES]
    if len(classes) > 1 and not split and not tables:
        return _read_classes(classes)
    if classes:
        why = f"{split[0]!r} is no class" if split else "there is one alone"
        why = f"{tables[0]!r} beside them is not read" if tables else why
        raise DataError(
            f"The folder {str(folder)!r} has folders with pictures, and they are not taken for classes: {why}. Give the one "
            "whose folders are the classes, or captions.txt with lines `image,caption`"
        )
    raise DataError(
        f"The folder {str(folder)!r} has no captions.txt, captions.csv or *.parquet, and no folders with pictures, one a "
        "class. Add captions.txt with lines `image,caption`"
    )


def _read_classes(folders: list[Path]) -> Iterator[TrainingExample]:
    """Single pictures, in a folder for each class: its name is their label, as for torchvision's `ImageFolder`."""
    for folder in folders:
        for path in _pictures(folder):
            data, _ = image_or_address(str(path.relative_to(folder)), folder)
            yield TrainingExample(image=data, label=folder.name, source=str(path.relative_to(folder.parent)))


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _pictures(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(map(_is_hidden, path.relative_to(folder).parts))
        and path.is_file()
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


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
            yield text_example(said.item, source, **more)
            continue
        data, uri = image_or_address(said.item, folder)
        missing = [] if data or uri else [said.item]
        if said.of_matches:
            found = [image_or_address(name, folder) for name in said.captions]
            missing += [name for name, there in zip(said.captions, found, strict=True) if not any(there)]
            more |= matches_of(found)
        source += "".join(f" ({folder / name}: no such file)" for name in missing[:1])
        yield TrainingExample(image=data, uri=uri, source=source, **more)


def _image_folder(path: Path, names: list[str]) -> Path:
    """Where most of these pictures are: beside the CSV, or in the `Images` folder of Kaggle's layout."""
    folders = (path.parent, path.parent / "Images", path.parent / "images")
    return max(folders, key=lambda folder: sum(_is_file(folder / name) for name in names))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long: an address, or a caption in the wrong column
        return False
