"""open_clip's models: their configuration, what it builds, and how they want their pictures."""

from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2

from attune.models.open_clip_entries import model_class
from attune.models.source import ModelSource


def config_of(source: ModelSource) -> dict[str, Any]:
    """open_clip's `model_cfg` of the model as it comes, with quick_gelu as the weights need it.

    OpenAI's weights were trained with QuickGELU, which their architecture's configuration does not say; a model that
    is built without it loads without an error and is quietly worse.
    """
    config: dict[str, Any] = open_clip.get_model_config(source.open_clip_name)
    pretrained = open_clip.get_pretrained_cfg(source.architecture, source.weights) if source.architecture else {}
    if pretrained.get("quick_gelu"):
        config["quick_gelu"] = True
    return config


def build(config: dict[str, Any]) -> Any:
    """The model of a configuration with random weights, on torch's default device; nothing is fetched."""
    config = {**config, "vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    kind = model_class(config)
    config.pop("custom_text", None)
    return kind(**config)


def transforms(preprocess: dict[str, Any]) -> list[Any]:
    """The steps of open_clip's own evaluation preprocessing."""
    steps: list[Any] = image_transform_v2(PreprocessCfg(**preprocess), is_train=False).transforms
    return steps
