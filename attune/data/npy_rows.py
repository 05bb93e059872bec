"""Embeddings in a table of NumPy's: of each item its own, and those that belong to it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attune.data.embeddings import to_bytes
from attune.errors import DataError
from attune.schemas import TrainingExample


def read_npy(path: Path) -> Iterator[TrainingExample]:
    """Examples of a `.npy` file (items, 1 + matches, dim), of which no more is read at a time than one item.

    Raises:
        DataError: if it is no such file, or of another shape.
    """
    for number, rows in enumerate(_open(path), start=1):
        first, *others = map(to_bytes, rows)
        yield TrainingExample(image=first, images=others, source=f"{path.name}, row {number}")


def count_rows(path: Path) -> int:
    """How many items a file holds.

    Raises:
        DataError: as `read_npy`.
    """
    return len(_open(path))


def _open(path: Path) -> np.ndarray:
    try:
        # Not `np.load`, which takes a zip file for an archive of arrays. Nothing is unpickled.
        table: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as NumPy's ({error}). Write it with numpy.save") from error
    if table.ndim != 3 or table.dtype.kind not in "fiu" or 0 in table.shape[1:]:
        raise DataError(
            f"{str(path)!r} holds {table.dtype} of the shape {table.shape}: give numbers (items, "
            "1 + matches, dim), an item's embedding and those that belong to it; with labels or groups, a Parquet file"
        )
    return table
