"""What each library does with its models: the same functions of all, a row each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attune.models import (
    image_encoder,
    mlp,
    open_clip_files,
    open_clip_models,
    open_clip_options,
    sentence,
    sentence_files,
    timm_files,
    timm_models,
)
from attune.models.library import Library, library_of
from attune.models.loaded import Loaded
from attune.models.source import ModelSource
from attune.settings import ModelOptions

Config = dict[str, Any]


class Functions(NamedTuple):
    """Of one library.

    Attributes:
        config_of: the configuration of a source's model, as it comes.
        changed_config: the configuration of the model that options ask for.
        check_options: passes if a model of a configuration can have options; else `SettingsError`.
        build: the model of a configuration, with random weights.
        load: the model of a source with options that were checked, and its weights.
        save: writes a model as a folder that the library opens; weights in another type if one is given.
        transforms: the steps of its evaluation preprocessing of a picture.
    """

    config_of: Callable[[ModelSource], Config]
    changed_config: Callable[[Config, ModelOptions], Config]
    check_options: Callable[[Config, ModelOptions], None]
    build: Callable[[Config], Any]
    load: Callable[[ModelSource, ModelOptions], Loaded]
    save: Callable[[Path, Loaded, torch.dtype | None], None]
    transforms: Callable[[Config], list[Any]]


LIBRARIES: dict[Library, Functions] = {
    "mlp": Functions(
        mlp.config_of,
        mlp.changed_config,
        mlp.check_options,
        mlp.Mlp,
        mlp.load,
        mlp.save,
        lambda _: [],  # it takes no pictures
    ),
    "open_clip": Functions(
        open_clip_models.config_of,
        open_clip_options.changed_config,
        open_clip_options.check_options,
        open_clip_models.build,
        open_clip_files.load,
        open_clip_files.save,
        open_clip_models.transforms,
    ),
    "sentence_transformers": Functions(
        sentence_files.config_of,
        sentence.changed_config,
        sentence.check_options,
        sentence.build_sentence,
        sentence_files.load,
        sentence_files.save,
        lambda _: [],  # it takes no pictures
    ),
    "timm": Functions(
        timm_models.config_of,
        timm_models.changed_config,
        timm_models.check_options,
        image_encoder.build_image_encoder,
        timm_files.load,
        timm_files.save,
        timm_files.transforms,
    ),
}


def functions_of(config: Mapping[str, Any]) -> Functions:
    """Those of the library that builds a model of this configuration."""
    return LIBRARIES[library_of(config)]
