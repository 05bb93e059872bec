"""A folder with a timm model, as timm writes it for the hub and opens it as `local-dir:FOLDER`.

Its configuration is read as data that anyone may have written: what it says decides which model timm builds. Nothing is let
pass but the names and sizes that are known here, and its weights are read from safetensors alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm

from attune.models.untrusted import (
    is_number,
    is_size,
    part,
    read_as_data,
    read_json,
    read_object,
    shorter_lengths,
    temperature,
)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
OURS = "attune"
"""The part of the configuration that timm does not look at."""

WRITERS = "timm or Attune"
MOST = 8192
"""Of sides of pictures and lengths of embeddings."""

POOLS = ("avg", "max", "avgmax", "catavgmax", "token", "map", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax")


@dataclass(frozen=True)
class TimmFolder:
    """What is said of a model besides its weights.

    Attributes:
        architecture: timm's name, with a tag or without.
        model_args: of `timm.create_model`.
        pretrained_cfg: how pictures are prepared, where it is another way than timm's own for the model.
        projection: the width of its classifier, where that was trained as a projection; else 0.
        pooler: "gem", or None for a pooling of timm's.
        logit_scale: the logarithm of the temperature; None if it was trained without one.
        matryoshka_dims: lengths at which the first numbers of its embeddings are embeddings of their own.
    """

    architecture: str
    model_args: dict[str, Any] = field(default_factory=dict)
    pretrained_cfg: dict[str, Any] = field(default_factory=dict)
    projection: int = 0
    pooler: str | None = None
    logit_scale: float | None = None
    matryoshka_dims: tuple[int, ...] = ()


def is_timm_folder(folder: Path) -> bool:
    """Whether a folder's `config.json` names an architecture as timm's do."""
    try:
        return isinstance(read_json(folder / CONFIG).get("architecture"), str)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def read_folder(folder: Path) -> TimmFolder:
    """What a folder's `config.json` says.

    Raises:
        ModelError: if it is no such configuration, or says what is not let pass.
    """
    with read_as_data(folder / CONFIG, WRITERS):
        found = _checked(read_object(folder / CONFIG))
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"there is no {WEIGHTS} beside it, and other kinds of files are not read")
    return found


def _checked(config: dict[str, Any]) -> TimmFolder:
    given = part(config, "pretrained_cfg")
    architecture, _, tag = config["architecture"].partition(".")
    if architecture not in timm.list_models():
        raise ValueError(f"timm has no model named {architecture[:100]!r}")
    tag = tag or given.get("tag") or ""
    name = f"{architecture}.{tag}"
    ours = part(config, OURS)
    projection, pooler = ours.get("projection", 0), ours.get("pooler")
    if not is_size(projection, MOST, least=0) or (projection and config.get("num_classes") != projection):
        raise ValueError(f"{OURS}.projection = {repr(projection)[:100]} is not its num_classes, from 1 to {MOST}")
    if pooler not in (None, "gem"):
        raise ValueError(f"{OURS}.pooler = {repr(pooler)[:100]} is none but 'gem'")
    return TimmFolder(
        architecture=name if name in timm.list_pretrained(f"{architecture}.*") else architecture,
        model_args=_model_args(part(config, "model_args")),
        pretrained_cfg=_of_pictures(given),
        projection=projection,
        pooler=pooler,
        logit_scale=temperature(ours.get("logit_scale")),
        matryoshka_dims=shorter_lengths(ours.get("matryoshka_dims", []), MOST),  # its own width the model itself tells
    )


def _model_args(given: dict[str, Any]) -> dict[str, Any]:
    """Those that decide a model's shape and function; what concerns training alone, as drop rates, is left out."""
    checks: dict[str, Callable[[Any], bool]] = {
        "img_size": lambda value: (
            is_size(value, MOST) or (_is_list(value, 2) and all(is_size(side, MOST) for side in value))
        ),
        "global_pool": lambda value: value in POOLS,
        "fc_norm": lambda value: isinstance(value, bool),
        "use_fc_norm": lambda value: isinstance(value, bool),
    }
    ignored = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate"}
    for name, value in given.items():
        if name not in ignored and (name not in checks or not checks[name](value)):
            raise ValueError(f"model_args.{name[:100]} = {repr(value)[:100]} is not let pass")
    if given.get("in_chans", 3) != 3:
        raise ValueError(f"in_chans = {repr(given['in_chans'])[:100]}: pictures have 3 channels")
    return {name: given[name] for name in checks if name in given}


def _of_pictures(given: dict[str, Any]) -> dict[str, Any]:
    """How pictures are prepared. Where weights lie, and how they are read, is not taken from a folder."""
    checks: dict[str, Callable[[Any], bool]] = {
        "input_size": lambda value: _is_list(value, 3) and value[0] == 3 and all(is_size(side, MOST) for side in value),
        "mean": lambda value: _is_list(value, 3) and all(is_number(each, -10, 10) for each in value),
        "std": lambda value: _is_list(value, 3) and all(is_number(each, 1e-3, 10) for each in value),
        "interpolation": lambda value: value in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
        "crop_pct": lambda value: is_number(value, 0.05, 4),
        "crop_mode": lambda value: value in ("center", "squash", "border"),
    }
    for name, is_good in checks.items():
        if name in given and not is_good(given[name]):
            raise ValueError(f"pretrained_cfg.{name} = {repr(given[name])[:100]} cannot be")
    return {name: given[name] for name in checks if name in given}


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length
