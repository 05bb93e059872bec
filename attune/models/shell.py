"""A model from its configuration alone, as its library builds it; or only its shapes, before anything is loaded."""

from typing import Any

import open_clip
import torch

from attune.models.image_encoder import build_image_encoder
from attune.models.library import library_of
from attune.models.sentence import build_sentence


def shell(config: dict[str, Any]) -> Any:
    """The model of a configuration on torch's meta device, where tensors have a shape and take no memory.

    Args:
        config: open_clip's `model_cfg`, or that of `attune.models.timm_models` or `attune.models.sentence`.

    Returns:
        None if its text tower is one of the Hugging Face hub's, whose shape is known only once it was fetched.
    """
    if "hf_model_name" in config.get("text_cfg", {}):
        return None
    with torch.device("meta"):
        return build(config)


def build(config: dict[str, Any]) -> Any:
    """The model of a configuration with random weights, on torch's default device; arguments as of `shell`."""
    if library_of(config) == "timm":
        return build_image_encoder(config)
    if library_of(config) == "sentence_transformers":
        return build_sentence(config)
    config = {**config, "vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    hugging_face = "hf_model_name" in config["text_cfg"]
    if hugging_face:
        config["text_cfg"]["hf_model_pretrained"] = False
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or hugging_face
    kind = (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
    return kind(**config)
