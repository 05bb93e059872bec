"""The configuration of a model folder: read as data that anyone may have written.

What it says decides which classes open_clip, timm and transformers build, how large they are, and whether code that lies
in the folder or on the hub would be run. Nothing of that kind is let pass.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from open_clip.hf_configs import arch_dict

from attune.errors import ModelError

CONFIG = "open_clip_config.json"
TEXT_TOWER = "text_tower_config.json"
"""transformers' configuration of a text tower of Hugging Face, which open_clip's own names alone."""

MAX_BYTES = 1_000_000
MAX_WEIGHTS = 20e9
"""Of one tower; the largest open CLIP has about 18 billion in both."""

_MOST = {"layers": 512, "num_layers": 512, "num_hidden_layers": 512, "width": 16_384, "mlp_ratio": 64}
_MOST |= dict.fromkeys(("hidden_size", "d_model"), 16_384) | dict.fromkeys(("intermediate_size", "d_ff"), 65_536)
_MOST |= dict.fromkeys(("vocab_size", "eos_id", "pad_id", "eos_token_id", "pad_token_id", "bos_token_id"), 2_000_000)
_MOST_OF_OTHERS = 8192
"""For every other number: sizes of pictures and patches, lengths of texts, heads, dimensions."""

_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*")
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language", "reduction_mask"}
"""Options for a tokenizer that open_clip's own configurations have; `trust_remote_code` is one it would take as well."""


def read_config(folder: Path) -> dict[str, Any]:
    """The parts `model_cfg` and `preprocess_cfg` of the folder's `open_clip_config.json`.

    Raises:
        ModelError: if it is no such configuration, would run code, or describes a model too large to be meant.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
        _check(config)
        if (folder / TEXT_TOWER).is_file():
            path = folder / TEXT_TOWER
            _check_text_tower(path)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be used: {error}. Take the folder as open_clip or Attune wrote it") from error
    found: dict[str, Any] = config
    return found


def _check(config: Any) -> None:
    model = config.get("model_cfg") if isinstance(config, dict) else None
    parts = (
        [model.get("vision_cfg"), model.get("text_cfg"), model.get("multimodal_cfg", {})] if isinstance(model, dict) else []
    )
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError("it needs a JSON object model_cfg with the objects vision_cfg and text_cfg")
    _check_values(config, "")
    for weights in map(_weights, parts):
        if weights > MAX_WEIGHTS:
            raise ValueError(f"it describes a tower of {weights:.0e} weights; at most {MAX_WEIGHTS:.0e} are built")


def _check_text_tower(path: Path) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get("model_type") not in arch_dict:
        raise ValueError(f"it needs a model_type that open_clip has as a text tower: {', '.join(arch_dict)}")
    if "auto_map" in config:
        raise ValueError("it would run code of its own")
    _check_values(config, "")
    for name, value in config.items():
        if value is not None and ("attn_implementation" in name or name == "quantization_config"):
            raise ValueError(f"{name} is not let pass: how a tower is computed is not a folder's to say")
        if name in ("dtype", "torch_dtype") and value not in (None, "float32"):
            raise ValueError(f"{name} = {str(value)[:100]!r}: a tower is built in float32")
        if "layers" in name and isinstance(value, int) and value > _MOST["layers"]:
            raise ValueError(f"{name} is larger than {_MOST['layers']}")
    weights = _count_text_tower(json.dumps(config))
    if weights > MAX_WEIGHTS:
        raise ValueError(f"it describes a tower of {weights:.0e} weights; at most {MAX_WEIGHTS:.0e} are built")


@lru_cache(maxsize=64)
def _count_text_tower(config: str) -> int:
    """Weights of transformers' model of a configuration, which is built without memory for them."""
    import transformers

    try:
        with torch.device("meta"):
            auto: Any = transformers.AutoModel
            model = auto.from_config(transformers.AutoConfig.for_model(**json.loads(config)))
    except Exception as error:  # each of transformers' models says it in its own way
        raise ValueError(f"transformers builds no model of it: {str(error)[:300]}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def _weights(tower: dict[str, Any]) -> float:
    """About how many weights open_clip's own tower of these sizes has: its blocks, its words, its places."""
    width, layers, side = tower.get("width", 768), tower.get("layers", 12), tower.get("image_size", 224)
    depth = sum(layers) if isinstance(layers, list) else layers  # a ResNet's are given stage by stage
    places = (max(side) if isinstance(side, list) else side) / (tower.get("patch_size") or 1)
    blocks = (4 + 2 * tower.get("mlp_ratio", 4)) * depth * width**2
    return float(blocks + (tower.get("vocab_size", 0) + places**2) * width)


def _check_values(value: Any, name: str) -> None:
    """Walks through the whole of it; `name` is the key that the value stands under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(inner, key)
        strange = value.keys() - _TOKENIZER_OPTIONS if name == "tokenizer_kwargs" else set()
        if strange:
            raise ValueError(f"tokenizer_kwargs has {', '.join(sorted(strange))}, which is not let pass")
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, name)
    elif isinstance(value, int | float) and not abs(value) <= _MOST.get(name, _MOST_OF_OTHERS):
        raise ValueError(f"{name} is larger than {_MOST.get(name, _MOST_OF_OTHERS):,}")
    elif isinstance(value, str):
        allowed = {"timm_model_name": _PLAIN, "hf_model_name": _ON_HUB, "hf_tokenizer_name": _ON_HUB}.get(name)
        if allowed and not allowed.fullmatch(value):
            raise ValueError(f"{name} = {value[:100]!r} is no plain name")
