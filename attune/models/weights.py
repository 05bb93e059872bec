"""Weights as safetensors files."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attune.files import whole_file

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""Data types by the names that `artifact_precision` takes."""


def save_weights(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Writes a state dict; floating-point weights as `dtype` if given."""
    tensors: dict[str, Tensor] = {}
    places = set[int]()
    for name, value in state.items():
        tensor = value.detach().to(dtype if dtype and value.is_floating_point() else value.dtype).cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in places else tensor  # safetensors takes none that share memory
        places.add(place)
    with whole_file(path) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
        draft.chmod(0o644)  # safetensors writes files that only their owner can read


def load_weights(path: Path) -> dict[str, Tensor]:
    """What `save_weights` wrote, on the CPU."""
    state: dict[str, Tensor] = load_file(path)
    return state


def forbid_unpickling() -> None:
    """Where this is set for the sake of another program, torch would unpickle anything, whatever it is told."""
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)


def check_archives(path: Path) -> None:
    """Checks a checkpoint, or all in a folder: torch's and numpy's are zip archives, which may unpack into anything.

    Raises:
        ValueError: if one unpacks into more than ten times its size.
    """
    for file in path.iterdir() if path.is_dir() else [path]:
        if file.is_file() and zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > 10 * file.stat().st_size:
                raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes and unpacks into {size:,}")
