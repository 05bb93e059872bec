"""Embeddings that another model made, in the place of pictures: each is a `.npy` file of one vector.

As bytes they go wherever pictures go: their SHA-256 is their key, and parts, fingerprints and matches know no difference.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from attune.schemas import TrainingExample

MAGIC = b"\x93NUMPY"
MOST_NUMBERS = 65_536
LONGEST_HEADER = 1024
"""Bytes; NumPy's own of a vector has 118."""

TYPES = ("<f2", "<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
"""Half, single and double precision, and integers, the lowest byte first."""

_HEADER = re.compile(
    rb"\{'descr': '([ -&(-~]{1,20})', 'fortran_order': (?:True|False), "
    rb"'shape': \(([0-9]{0,12}(?:, ?[0-9]{0,12}){0,8})\), \} *\n"
)
"""As NumPy writes it; nothing of it is evaluated."""


def to_bytes(numbers: Any) -> bytes:
    """A vector as it is stored: a `.npy` file of float32. Numbers too large for that become infinite, None is NaN.

    Args:
        numbers: one-dimensional.

    Raises:
        ValueError, TypeError: if these are no numbers, or not in one row.
    """
    with np.errstate(over="ignore"):
        vector = np.asarray(numbers, dtype=np.float64).astype("<f4")
    if vector.ndim != 1:
        raise ValueError(f"an embedding is one row of numbers, and this has the shape {vector.shape}")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(vector)},), }}"
    # 10 bytes come before the header; with the line's end NumPy fills all of it up to a multiple of 64.
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header.encode("ascii") + vector.tobytes()


def is_embedding(data: bytes) -> bool:
    """Whether bytes begin as those of a `.npy` file do, as no picture does."""
    return data.startswith(MAGIC)


def read_embedding(data: bytes) -> np.ndarray:
    """The vector of a `.npy` file that anyone may have written: float32 (dim,). Nothing is allocated but what is there.

    Args:
        data: with a vector of one of `TYPES`, or a table of one row.

    Raises:
        ValueError: if it is another kind of file, is cut short or too long, has too many numbers, has one that is not
            finite in float32, or zeros alone.
    """
    kind, count, start = _header(data)
    if count * kind.itemsize != len(data) - start:
        raise ValueError(f"it has {len(data) - start:,} bytes of numbers, and its header says {count * kind.itemsize:,}")
    if not 0 < count <= MOST_NUMBERS:
        raise ValueError(f"it has {count:,} numbers; from 1 to {MOST_NUMBERS:,} are accepted")
    with np.errstate(over="ignore", invalid="ignore"):
        vector: np.ndarray = np.frombuffer(data, dtype=kind, offset=start).astype(np.float32)
    if broken := int(np.count_nonzero(~np.isfinite(vector))):
        raise ValueError(f"{broken:,} of its {count:,} numbers are missing, no numbers, or too large for float32")
    if not vector.any():
        raise ValueError(f"its {count:,} numbers are all zero, so it has no direction to compare")
    return vector


def _header(data: bytes) -> tuple[np.dtype[Any], int, int]:
    """Type, count and first byte of the numbers in a `.npy` file."""
    if len(data) < 12 or not is_embedding(data) or data[6] not in (1, 2, 3):
        raise ValueError("it is no .npy file of version 1, 2 or 3")
    begin = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > min(LONGEST_HEADER, len(data) - begin):
        raise ValueError(f"its header of {length:,} bytes is cut short, or longer than {LONGEST_HEADER:,}")
    said = _HEADER.fullmatch(data[begin : begin + length])
    if said is None:
        raise ValueError("its header is not as NumPy writes it for a table of numbers")
    kind, shape = said[1].decode(), [int(side) for side in said[2].split(b",") if side.strip()]
    if kind not in TYPES:
        raise ValueError(f"it holds {kind!r}; numbers in float16, float32 or float64, and integers, are accepted")
    if not shape or any(side != 1 for side in shape[:-1]):  # a table of one row is as good as the row
        raise ValueError(f"it has the shape {tuple(shape[:8])}; an embedding is one row of numbers")
    return np.dtype(kind), shape[-1], begin + length


def canonical(data: Any) -> Any:
    """An embedding as `to_bytes` writes it, so that equal ones have equal keys; anything else as it is."""
    if not isinstance(data, bytes) or not is_embedding(data):
        return data
    try:
        return to_bytes(read_embedding(data))
    except ValueError:  # whoever looks at it next says so
        return data


def dimension_of(data: bytes) -> int:
    """How many numbers an embedding has; 0 of anything else, and of one that cannot be used."""
    try:
        return len(read_embedding(data))
    except ValueError:
        return 0


def carried(example: TrainingExample) -> TrainingExample:
    """The example with its embeddings as bytes in the pictures' place; as it is where pictures or a text stand there too."""
    item, others = _bytes(example.embedding), [_bytes(numbers) for numbers in example.embeddings]
    changes: dict[str, Any] = {}
    if item and not (example.image or example.uri or example.text):
        changes |= {"image": item, "embedding": []}
    if others and not (example.images or example.uris):
        changes |= {"images": others, "embeddings": []}
    copy: TrainingExample = example.model_copy(update=changes) if changes else example
    return copy


def _bytes(numbers: Sequence[float]) -> bytes:
    return to_bytes(numbers) if numbers else b""
