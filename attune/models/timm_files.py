"""timm's models loaded from the hub, a checkpoint or a folder, and saved as a folder that timm opens."""

import json
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform, resolve_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from attune.models.image_encoder import ImageEncoder, build_image_encoder, build_trunk
from attune.models.loaded import Loaded
from attune.models.source import ModelSource
from attune.models.timm_folder import CONFIG, OURS, WEIGHTS, read_folder
from attune.models.timm_models import changed_config, config_of, registered
from attune.models.weights import check_archives, save_weights
from attune.settings import ModelOptions

_IMAGE_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def load(source: ModelSource, options: ModelOptions) -> Loaded:
    """The model of a source, with its weights.

    Weights are checked to be all there. timm interpolates position embeddings for another size of pictures. A new
    projection has orthonormal columns or rows: wider, it leaves similarities as they are, narrower, it is a random
    projection; one that was trained and is to be narrower keeps the directions in which it is largest. Draws from torch's
    random numbers.

    Args:
        source: of the model.
        options: of the run, which `check_options` let pass.

    Raises:
        ValueError, RuntimeError, OSError: of timm, torch and the hub, where weights cannot be had or do not fit.
    """
    if source.folder or source.weights:
        check_archives(source.folder or Path(source.weights))
    config = config_of(source)
    changed = changed_config(config, options)
    model = build_image_encoder(changed)
    preprocess = preprocess_of(changed, source)
    if source.scratch:
        return Loaded(model, None, changed, preprocess)
    dims: tuple[int, ...] = ()
    if source.folder:
        found, said = load_state_dict(str(source.folder / WEIGHTS)), read_folder(source.folder)
        if said.logit_scale is not None:
            nn.init.constant_(model.logit_scale, said.logit_scale)
        dims = said.matryoshka_dims if changed["embed_dim"] == config["embed_dim"] else ()
    else:
        found = load_state_dict(source.weights) if source.weights else None
    _take_over(model.visual.trunk, _with_weights(changed, found), config, changed)
    return Loaded(model, None, changed, preprocess, dims)


def save(folder: Path, loaded: Loaded, dtype: torch.dtype | None = None) -> None:
    """Weights and configuration, so that timm opens the folder as `local-dir:FOLDER`.

    Args:
        folder: that exists.
        loaded: to save.
        dtype: of floating-point weights, if not their own.
    """
    model: ImageEncoder = loaded.model
    config, preprocess = loaded.config, loaded.preprocess
    save_weights(folder / WEIGHTS, model.visual.trunk.state_dict(), dtype)
    architecture, _, tag = config["architecture"].partition(".")
    facts = registered(config["architecture"])
    size = config["image_size"]
    known = ("fixed_input_size", "first_conv", "classifier", "license")
    ours: dict[str, Any] = {"logit_scale": model.logit_scale.item()}
    ours |= {"projection": config["num_classes"]} if config["num_classes"] else {}
    ours |= {"pooler": config["pooler"]} if config["pooler"] else {}
    ours |= {"matryoshka_dims": list(loaded.matryoshka_dims)} if loaded.matryoshka_dims else {}
    written = {
        "architecture": architecture,
        "num_classes": config["num_classes"],
        "num_features": model.visual.trunk.num_features,
        "model_args": dict(config["model_args"]),
        "pretrained_cfg": {
            "tag": tag,
            "input_size": [3, *size],
            **{key: preprocess[key] for key in _IMAGE_KEYS if key in preprocess},
            **{key: facts[key] for key in known if key in facts},
            "num_classes": config["num_classes"],
        },
        OURS: ours,
    }
    (folder / CONFIG).write_text(json.dumps(written, indent=2) + "\n")


def preprocess_of(config: dict[str, Any], source: ModelSource) -> dict[str, Any]:
    """How timm prepares pictures for a model, by open_clip's names, with `crop_pct` and `crop_mode` besides."""
    given = read_folder(source.folder).pretrained_cfg if source.folder else {}
    data = resolve_data_config(given, pretrained_cfg=registered(config["architecture"]))
    height, width = config["image_size"]
    fill = {"fill_color": [round(255 * value) for value in data["mean"]]} if data["crop_mode"] == "border" else {}
    return {
        **fill,
        "size": height if height == width else [height, width],
        "mode": "RGB",
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "interpolation": data["interpolation"],
        "crop_pct": data["crop_pct"],
        "crop_mode": data["crop_mode"],
    }


def transforms(preprocess: dict[str, Any]) -> list[Any]:
    """The steps of timm's own evaluation preprocessing, of pictures that are RGB."""
    size = preprocess["size"]
    height, width = size if isinstance(size, list) else (size, size)
    given = {key: preprocess[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
    steps: list[Any] = create_transform((3, height, width), is_training=False, **given).transforms
    return steps


def _with_weights(config: dict[str, Any], state: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """A state dict of timm's model with all its weights, the classifier's among them, resampled where that is needed.

    Args:
        config: of the model.
        state: of a checkpoint; None for the weights that timm fetches.
    """
    if state is None:
        whole = build_trunk(config, pretrained=True, num_classes=None)
    else:
        names = registered(config["architecture"]).get("classifier") or ""
        name = names if isinstance(names, str) else names[0]
        # Where the numbers of classes are equal timm leaves nothing out, and so says what is missing.
        classes = len(state.get(f"{name}.weight", ()))
        overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
        whole = build_trunk(config, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
    found: dict[str, Tensor] = whole.state_dict()
    return found


def _take_over(trunk: Any, state: dict[str, Tensor], config: dict[str, Any], changed: dict[str, Any]) -> None:
    """Gives a model the weights of one that may differ in the classifier alone, and a projection if it has one.

    Args:
        trunk: of the configuration `changed`.
        state: of a model of the configuration `config`, with a classifier of any width.
        config: before the options.
        changed: after them.
    """
    given, wanted = config["num_classes"], changed["num_classes"]
    own = trunk.state_dict()
    if wanted and wanted != given:
        name = next(name for name, module in trunk.named_modules() if module is trunk.get_classifier())
        projection = state[f"{name}.weight"] if given else None
        turn = _turn(wanted, own[f"{name}.weight"].shape[1], projection)
        bias = torch.zeros(wanted)
        if projection is not None:
            bias = turn @ state[f"{name}.bias"] if f"{name}.bias" in state else bias
            turn = turn @ projection
        state = {**state, f"{name}.weight": turn, f"{name}.bias": bias}
    trunk.load_state_dict({name: state[name] for name in own})


def _turn(width: int, features: int, projection: Tensor | None) -> Tensor:
    """A matrix of orthonormal rows or columns, for features or for what a projection (dim, features) makes of them.

    Returns:
        float32 (width, features), or (width, dim).
    """
    if projection is None:
        wide: Tensor = torch.linalg.qr(torch.randn(max(width, features), min(width, features))).Q
        return wide if width >= features else wide.T
    if width > len(projection):
        return _turn(width, len(projection), None)
    directions: Tensor = torch.linalg.svd(projection, full_matrices=False).U
    return directions[:, :width].T
