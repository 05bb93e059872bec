"""timm's models by name, and what of them may be other than they come: size of pictures, pooling, width of embeddings."""

import json
from functools import lru_cache
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attune.errors import SettingsError
from attune.models.image_encoder import build_trunk, pooling_layer
from attune.models.source import ModelSource
from attune.models.timm_folder import CONFIG, WRITERS, TimmFolder, read_folder
from attune.models.untrusted import build_shell, read_as_data, shorter_lengths
from attune.settings import ModelOptions

POOLINGS = {"mean": "avg", "max": "max", "cls": "token"}
"""timm's names of ours; GeM it has not."""


def config_of(source: ModelSource) -> dict[str, Any]:
    """What builds the model, as it comes, again.

    Returns:
        `library`; `architecture`, with timm's tag if it has weights of timm's; `model_args` of `timm.create_model`;
        `num_classes`, which is the width of a projection, or 0 if there is none; `pooler`, "gem" or None for timm's own;
        `image_size`, height and width; and `embed_dim`.

    Raises:
        ModelError: if a folder's configuration is not to be used.
    """
    if source.folder is None:
        return _complete(TimmFolder(source.architecture))
    with read_as_data(source.folder / CONFIG, WRITERS):
        given = read_folder(source.folder)
        config = _complete(given)
        shorter_lengths([*given.matryoshka_dims], config["embed_dim"])
    return config


def changed_config(config: dict[str, Any], options: ModelOptions) -> dict[str, Any]:
    """The configuration of the model that the options ask for; of none, an equal one.

    Raises:
        SettingsError: if it cannot pool like that.
    """
    changed = {**config, "model_args": dict(config["model_args"])}
    if options.image_size is not None:
        changed["image_size"] = [options.image_size] * 2
        if "img_size" in changed["model_args"]:
            changed["model_args"]["img_size"] = changed["image_size"]
    if options.output_dim is not None and options.output_dim != config["embed_dim"]:
        changed["num_classes"] = changed["embed_dim"] = options.output_dim
    if options.pooler is not None:
        changed |= _pooling(changed, options.pooler)
    return changed


def check_options(config: dict[str, Any], options: ModelOptions) -> None:
    """Passes if a model can have the options: nothing is loaded.

    Raises:
        SettingsError: with what cannot be, the reason, and what to choose.
    """
    if options.context_length is not None:
        raise SettingsError(
            f"model_options.context_length = {options.context_length}: {config['architecture']} has no text tower. Leave "
            "it out"
        )
    changed = changed_config(config, options)
    size = changed["image_size"]
    try:
        trunk = _shell(changed).eval()
        trunk(torch.empty(1, 3, *size, device="meta"))
    except Exception as error:  # each of timm's models says it in its own way
        if size == config["image_size"]:
            raise
        raise SettingsError(
            f"model_options.image_size = {options.image_size}: {config['architecture']} cannot take such pictures "
            f"({str(error)[:200]}). It comes with {config['image_size'][0]}; choose a multiple of {_stride(config)}"
        ) from error
    if changed["num_classes"] and not isinstance(trunk.get_classifier(), nn.Linear):
        raise SettingsError(
            f"model_options.output_dim = {options.output_dim}: {config['architecture']} has no place for one linear "
            "projection behind its pooling. Leave it out; matryoshka_dims makes shorter embeddings good ones with any model"
        )


def _complete(given: TimmFolder) -> dict[str, Any]:
    """The configuration, with the sizes that timm's registry or the model itself knows."""
    known = registered(given.architecture)
    size = list((given.pretrained_cfg.get("input_size") or known["input_size"])[1:])
    arguments = dict(given.model_args)
    if known["fixed_input_size"]:
        size = arguments.setdefault("img_size", size)
    config = {
        "library": "timm",
        "architecture": given.architecture,
        "model_args": arguments,
        "num_classes": given.projection,
        "pooler": given.pooler,
        "image_size": size if isinstance(size, list) else [size, size],
    }
    return {**config, "embed_dim": _width(json.dumps(config))}


def registered(architecture: str) -> dict[str, Any]:
    """What timm knows of a name: preprocessing, where its weights are, what its classifier is called."""
    found: dict[str, Any] = get_pretrained_cfg(architecture).to_dict()
    return found


@lru_cache(maxsize=64)
def _width(config: str) -> int:
    """The length of what a model gives."""
    given = json.loads(config)
    trunk = build_shell(lambda: build_trunk(given), "timm", "a model")
    with torch.no_grad():
        found: Tensor = trunk.eval()(torch.empty(1, 3, *given["image_size"], device="meta"))
    return found.shape[1]


def _stride(config: dict[str, Any]) -> int:
    """Pixels of a picture to each place of the last feature map."""
    return int(_shell(config).feature_info[-1]["reduction"])


def _shell(config: dict[str, Any]) -> Any:
    """The model on torch's meta device."""
    with torch.device("meta"):
        return build_trunk(config)


def _pooling(config: dict[str, Any], pooler: str) -> dict[str, Any]:
    """What of a configuration another pooling changes.

    Raises:
        SettingsError: if the model pools in a way of its own, or has no class token.
    """
    trunk = _shell(config)
    layer = pooling_layer(trunk)
    is_transformer = isinstance(trunk, VisionTransformer | Eva) and not isinstance(trunk, VisionTransformerDistilled)
    own = trunk.global_pool if is_transformer else layer.pool_type.removeprefix("fast") if layer else ""
    if (
        own in ("map", "catavgmax", "")
        or pooler == "last"
        or (pooler == "cls" and not _has_class_token(trunk, is_transformer))
    ):
        choice = "mean, max, gem" + ", cls" * _has_class_token(trunk, is_transformer)
        choice = f"choose one of {choice}" if own not in ("map", "catavgmax", "") else "leave it out"
        raise SettingsError(
            f"model_options.pooler = {pooler!r}: {config['architecture']} cannot pool like that, its own pooling is "
            f"{own or 'a part of its layers'!r}; {choice}"
        )
    if pooler == "gem":
        return {"pooler": "gem"}
    arguments = dict(config["model_args"])
    if POOLINGS[pooler] != own:
        arguments["global_pool"] = POOLINGS[pooler]
        if is_transformer:  # timm would put a norm without weights after the pooling, for the one before it
            name = "use_fc_norm" if isinstance(trunk, Eva) else "fc_norm"
            arguments[name] = not isinstance(trunk.fc_norm, nn.Identity)
    return {"pooler": None, "model_args": arguments}


def _has_class_token(trunk: Any, is_transformer: bool) -> bool:
    return is_transformer and getattr(trunk, "cls_token", None) is not None
