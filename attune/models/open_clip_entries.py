"""The entries of `open_clip_config.json`: only those that open_clip's classes take, each of the type that they say."""

import inspect
import json
from typing import Any, get_type_hints

import open_clip
from open_clip.coca_model import MultimodalCfg
from open_clip.transform import PreprocessCfg
from pydantic import TypeAdapter, ValidationError

from attune.choices import did_you_mean
from attune.models.untrusted import part

PARTS = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
_CHOSEN = ("cast_dtype", "output_dict")
"""What a folder does not decide: in which type weights are, and how a model gives its embeddings."""


def model_class(config: dict[str, Any]) -> Any:
    """The class that open_clip builds of a `model_cfg`."""
    if not config.get("custom_text", False) and "hf_model_name" not in config["text_cfg"]:
        return open_clip.CLIP
    return open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP


def check_entries(config: dict[str, Any]) -> None:
    """Passes if open_clip takes all that a configuration says.

    Args:
        config: with `model_cfg`, whose parts are objects, and perhaps `preprocess_cfg`. Of that open_clip leaves out what it
            does not know, and so is it here.

    Raises:
        ValueError: with the first entry that is not known, or is of another type.
    """
    model = config["model_cfg"]
    taken = inspect.signature(model_class(model)).parameters.keys() - {*_CHOSEN} | {"custom_text"}
    own = {name: value for name, value in model.items() if name not in PARTS}
    _check("model_cfg", own, {name: kind for name, kind in _TYPES.items() if name in taken})
    if "embed_dim" not in model:
        raise ValueError("model_cfg.embed_dim is missing")
    for name, kind in PARTS.items():
        _check(f"model_cfg.{name}", part(model, name), get_type_hints(kind))
    pictures, types = part(config, "preprocess_cfg"), get_type_hints(PreprocessCfg)
    _check("preprocess_cfg", {name: value for name, value in pictures.items() if name in types}, types)


_TYPES = {**get_type_hints(open_clip.CLIP.__init__), "custom_text": bool}


def _check(where: str, given: dict[str, Any], types: dict[str, Any]) -> None:
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"{where}.{name[:100]}: open_clip knows no such entry{did_you_mean(name, types)}")
        try:
            TypeAdapter(types[name] | None).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Input ")
            raise ValueError(f"{where}.{name} = {repr(value)[:100]} {said}") from error
