"""What is let pass of model folders, which anyone may have written: limits that all their readers share, and the checks.

The checks raise `ValueError`, which says what cannot be; within `read_as_data` it becomes an error that names the file.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attune.errors import ModelError

MAX_BYTES = 1_000_000
"""Of one file with a configuration."""

MAX_WEIGHTS = 20e9
"""Of one tower, with the masks that it keeps; the largest open CLIP has about 18 billion in both."""

MOST_LAYERS = 512
MOST_WORDS = 2_000_000

PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@contextmanager
def read_as_data(path: Path, writers: str) -> Iterator[None]:
    """Whatever goes wrong within says which file, or folder, cannot be used: what does not fit raises many kinds of errors.

    Args:
        path: that is read.
        writers: who writes such ones.

    Raises:
        ModelError: in place of any other error.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path} cannot be used: {_said(error)}. Take the folder as {writers} wrote it") from error


def _said(error: Exception) -> str:
    """What an error means to somebody who wrote a file and no Python."""
    said = str(error)[:1000].rstrip(". \n")
    if isinstance(error, KeyError):
        return f"{said} is missing"
    if isinstance(error, AttributeError | IndexError | TypeError):
        return f"a value in it is of another kind than it has to be ({said})"
    return said or type(error).__name__


def check_files(folder: Path) -> None:
    """Passes if all that lies in a folder, and in folders in it, are files and folders: whoever opens a pipe waits for ever.

    Libraries open what they find by names of their own, so none is left out. Links are followed; broken ones are no files.

    Raises:
        ModelError: with the first that is something else.
    """
    with read_as_data(folder, "its library"):
        for path in sorted((*folder.glob("*"), *folder.glob("*/*"))):
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ValueError(f"{path.relative_to(folder)} is no regular file, but a pipe, a socket or a device")


def read_json(path: Path, most: int = MAX_BYTES) -> Any:
    """What a file holds: an object or a list.

    Args:
        path: of the file.
        most: bytes that it may have.
    """
    if not path.exists():
        raise ValueError(f"there is no {path.name}")
    if not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    with path.open("rb") as file:
        data = file.read(most + 1)  # what a file says of its size need not be so
    if len(data) > most:
        raise ValueError(f"{path.name} has more than {most:,} bytes")
    try:
        found = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(found, dict | list):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def read_object(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """What a file holds, which has to be a JSON object; arguments as of `read_json`."""
    found = read_json(path, most)
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a list, and has to hold a JSON object")
    return found


def part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The object that stands in a configuration under a name; an empty one if nothing does."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} = {repr(value)[:100]} has to be a JSON object")
    return value


def refuse_code(config: dict[str, Any]) -> None:
    """Passes if a configuration of transformers names no code to run, and no weights that are more than numbers."""
    for name in ("auto_map", "quantization_config"):
        if config.get(name) is not None:
            raise ValueError(f"it has {name}: code of its own, or weights that are no plain numbers, are not let pass")


def check_numbers(value: Any, most: Callable[[str], int], name: str = "") -> None:
    """Passes if no number is too large, or none at all; walks through the whole of a configuration.

    Args:
        value: of the configuration.
        most: gives the largest for a key, positive or negative.
        name: the key that the value stands under.
    """
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else ((name, inner) for inner in value):
            check_numbers(inner, most, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    elif isinstance(value, int | float) and abs(value) > most(name):
        raise ValueError(f"{name} is larger than {most(name):,}")


def check_weights(count: float, what: str) -> None:
    """Passes if a tower of so many weights may be meant."""
    if count > MAX_WEIGHTS:
        raise ValueError(f"it describes {what} of {count:.0e} weights; at most {MAX_WEIGHTS:.0e} are built")


def count_weights(model: nn.Module) -> int:
    """Numbers that a model holds, its masks and statistics among them; it may be on torch's meta device."""
    return sum(tensor.numel() for tensors in (model.parameters(), model.buffers()) for tensor in tensors)


def build_shell(build: Callable[[], nn.Module], library: str, what: str) -> Any:
    """A model on torch's meta device, where it takes no memory, if it is not too large to be meant.

    Args:
        build: makes it.
        library: that does so, for the message if it cannot.
        what: it is, for the message if it is too large.
    """
    try:
        with torch.device("meta"):
            model = build()
    except Exception as error:  # each model says it in its own way
        raise ValueError(f"{library} builds no model of it ({str(error)[:300] or type(error).__name__})") from error
    check_weights(count_weights(model), what)
    return model


def is_size(value: Any, most: int, least: int = 1) -> bool:
    """Whether it is an integer within these bounds."""
    return type(value) is int and least <= value <= most


def is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is a number within these bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def temperature(value: Any) -> float | None:
    """The logarithm of a temperature that a folder says; None if it says none."""
    if value is not None and not is_number(value, -10, 10):
        raise ValueError(f"logit_scale = {repr(value)[:100]} is no logarithm of a temperature, from -10 to 10")
    found: float | None = value
    return found


MOST_LENGTHS = 32
"""Of shorter embeddings: each is measured by itself."""


def shorter_lengths(value: Any, width: int) -> tuple[int, ...]:
    """Lengths at which the beginnings of embeddings are embeddings of their own, shortest first.

    Args:
        value: what a folder says under `matryoshka_dims`.
        width: of the whole embedding, which such lengths are below.
    """
    if not isinstance(value, list) or len(value) > MOST_LENGTHS or not all(is_size(length, width - 1) for length in value):
        raise ValueError(
            f"matryoshka_dims = {repr(value)[:200]} are no lengths, {MOST_LENGTHS} at most, below {width}, that of the "
            "whole embedding"
        )
    return tuple(sorted(set(value)))
