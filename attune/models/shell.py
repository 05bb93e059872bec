"""A model from its configuration alone, as its library builds it; or only its shapes, before anything is loaded."""

from typing import Any

import torch

from attune.models.libraries import functions_of


def shell(config: dict[str, Any]) -> Any:
    """The model of a configuration on torch's meta device, where tensors have a shape and take no memory.

    Args:
        config: see `attune.models.clip.config_of`.

    Returns:
        None if its text tower is one of the Hugging Face hub's, whose shape is known only once it was fetched.
    """
    if "hf_model_name" in config.get("text_cfg", {}):
        return None
    with torch.device("meta"):
        return build(config)


def build(config: dict[str, Any]) -> Any:
    """The model of a configuration with random weights, on torch's default device; arguments as of `shell`."""
    return functions_of(config).build(config)
