"""The configuration of a model folder: read as data that anyone may have written.

What it says decides which classes open_clip, timm and transformers build, how large they are, and whether code that lies
in the folder or on the hub would be run. Nothing of that kind is let pass.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from open_clip.hf_configs import arch_dict

from attune.models.open_clip_entries import check_entries
from attune.models.untrusted import (
    HUB_NAME,
    MOST_LAYERS,
    MOST_WORDS,
    PLAIN_NAME,
    build_shell,
    check_numbers,
    check_weights,
    part,
    read_as_data,
    read_object,
    refuse_code,
)
from attune.models.vocabulary import check_tokenizer_files

CONFIG = "open_clip_config.json"
TEXT_TOWER = "text_tower_config.json"
"""transformers' configuration of a text tower of Hugging Face, which open_clip's own names alone."""

WRITERS = "open_clip or Attune"
_MOST = {"width": 16_384, "mlp_ratio": 64}
_MOST |= dict.fromkeys(("hidden_size", "d_model"), 16_384) | dict.fromkeys(("intermediate_size", "d_ff"), 65_536)
_MOST |= dict.fromkeys(("vocab_size", "eos_id", "pad_id", "eos_token_id", "pad_token_id", "bos_token_id"), MOST_WORDS)
_MOST_OF_OTHERS = 8192
"""For every other number: sizes of pictures and patches, lengths of texts, heads, dimensions."""

_NAMES = {"timm_model_name": PLAIN_NAME, "hf_model_name": HUB_NAME, "hf_tokenizer_name": HUB_NAME}
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language", "reduction_mask"}
"""Options for a tokenizer that open_clip's own configurations have; `trust_remote_code` is one it would take as well."""


def read_config(folder: Path) -> dict[str, Any]:
    """The parts `model_cfg` and `preprocess_cfg` of the folder's `open_clip_config.json`.

    Raises:
        ModelError: if it is no such configuration, would run code, or describes a model too large to be meant.
    """
    with read_as_data(folder / CONFIG, WRITERS):
        config = read_object(folder / CONFIG)
        _check(config)
        if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
            check_tokenizer_files(folder)
    if (folder / TEXT_TOWER).exists():
        with read_as_data(folder / TEXT_TOWER, WRITERS):
            _check_text_tower(read_object(folder / TEXT_TOWER))
    return config


def _check(config: dict[str, Any]) -> None:
    model = part(config, "model_cfg")
    parts = [model.get("vision_cfg"), model.get("text_cfg"), model.get("multimodal_cfg", {})]
    if not all(isinstance(one, dict) for one in parts):
        raise ValueError("it needs a JSON object model_cfg with the objects vision_cfg and text_cfg")
    check_numbers(config, _most)
    _check_names(config, "")
    check_entries(config)
    for weights in map(_weights, parts):
        check_weights(weights, "a tower")
    _build(json.dumps(model))


@lru_cache(maxsize=64)
def _build(config: str) -> None:
    """Passes if open_clip makes a model of it; a text tower of Hugging Face is another's to say."""
    from attune.models.open_clip_models import build

    given = json.loads(config)
    if "hf_model_name" in given["text_cfg"]:
        given |= {"text_cfg": {"width": 8, "heads": 1, "layers": 1, "vocab_size": 8}, "custom_text": True}
    build_shell(lambda: build(given), "open_clip", "a model")


def _check_text_tower(config: dict[str, Any]) -> None:
    if not isinstance(config.get("model_type"), str) or config["model_type"] not in arch_dict:
        raise ValueError(f"it needs a model_type that open_clip has as a text tower: {', '.join(arch_dict)}")
    refuse_code(config)
    check_numbers(config, _most)
    _check_names(config, "")
    for name, value in config.items():
        if value is not None and "attn_implementation" in name:
            raise ValueError(f"{name} is not let pass: how a tower is computed is not a folder's to say")
        if name in ("dtype", "torch_dtype") and value not in (None, "float32"):
            raise ValueError(f"{name} = {str(value)[:100]!r}: a tower is built in float32")
    _build_text_tower(json.dumps(config))


@lru_cache(maxsize=64)
def _build_text_tower(config: str) -> None:
    import transformers

    auto, given = transformers.AutoModel, transformers.AutoConfig.for_model(**json.loads(config))
    build_shell(lambda: auto.from_config(given), "transformers", "a tower")  # type: ignore[no-untyped-call]


def _weights(tower: dict[str, Any]) -> float:
    """About how many weights open_clip's own tower of these sizes has: its blocks, its words, its places."""
    width, layers, side = tower.get("width", 768), tower.get("layers", 12), tower.get("image_size", 224)
    depth = sum(layers) if isinstance(layers, list) else layers  # a ResNet's are given stage by stage
    places = (max(side) if isinstance(side, list) else side) / (tower.get("patch_size") or 1)
    blocks = (4 + 2 * tower.get("mlp_ratio", 4)) * depth * width**2
    return float(blocks + (tower.get("vocab_size", 0) + places**2) * width)


def _most(name: str) -> int:
    return _MOST.get(name, MOST_LAYERS if "layers" in name else _MOST_OF_OTHERS)


def _check_names(value: Any, name: str) -> None:
    """Walks through the whole of it; `name` is the key that the value stands under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_names(inner, key)
        strange = value.keys() - _TOKENIZER_OPTIONS if name == "tokenizer_kwargs" else set()
        if strange:
            raise ValueError(f"tokenizer_kwargs has {', '.join(sorted(strange))}, which is not let pass")
    elif isinstance(value, list):
        for inner in value:
            _check_names(inner, name)
    elif isinstance(value, str) and name in _NAMES and not _NAMES[name].fullmatch(value):
        raise ValueError(f"{name} = {value[:100]!r} is no plain name")
