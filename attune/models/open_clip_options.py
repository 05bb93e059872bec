"""A model with another picture size, text length or width of embeddings than it comes with.

Its configuration is changed first, and a model is built from that as open_clip will build it from the artifact; then it
takes over the weights, with position embeddings resampled and projections turned. So such an artifact opens in open_clip.
"""

import re
from types import SimpleNamespace
from typing import Any

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from attune.errors import SettingsError
from attune.models.open_clip_models import build
from attune.models.sentence import ROBERTA
from attune.settings import ModelOptions

RESNET_STRIDE = 32
"""Pixels of a picture to each place of a ResNet's last feature map."""

State = dict[str, Tensor]


def changed_config(config: dict[str, Any], options: ModelOptions) -> dict[str, Any]:
    """The `model_cfg` of the model that the options ask for; of none, an equal one.

    Args:
        config: open_clip's `model_cfg` of the model as it comes.
        options: of the run.
    """
    changed = {**config, "vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    size, length = options.image_size, options.context_length
    if size is not None and size != _side(config):
        changed["vision_cfg"]["image_size"] = size
        sized = _timm_name(config, size)
        if sized in timm.list_models():
            changed["vision_cfg"]["timm_model_name"] = sized  # open_clip builds timm's towers for the size in their name
    if length is not None:
        changed["text_cfg"]["context_length"] = length
        if "multimodal_cfg" in config:  # CoCa's caption decoder reads what the text tower gives
            changed["multimodal_cfg"] = {**config["multimodal_cfg"], "context_length": length}
    if options.output_dim is not None:
        changed["embed_dim"] = options.output_dim
    return changed


def check_options(config: dict[str, Any], options: ModelOptions) -> None:
    """Passes if the model can have the options, as far as its configuration tells: nothing is loaded.

    Raises:
        SettingsError: with what cannot be, the reason, and what to choose.
    """
    if options.pooler is not None:
        raise SettingsError(
            f"model_options.pooler = {options.pooler!r} is for models of one tower, text encoders and timm's: a CLIP keeps "
            "the pooling that its towers were trained with. Leave it out"
        )
    changed = changed_config(config, options)
    if options.image_size is not None and options.image_size != _side(config):
        _check_image_size(config, changed, options.image_size)
    if options.output_dim is not None and options.output_dim != config["embed_dim"]:
        for tower in ("image", "text"):
            if reason := _why_no_other_head(config, tower):
                raise SettingsError(
                    f"model_options.output_dim = {options.output_dim}: {reason}. Leave it out; matryoshka_dims "
                    "makes shorter embeddings good ones with any model"
                )


def with_options(model: Any, config: dict[str, Any], options: ModelOptions) -> tuple[Any, dict[str, Any]]:
    """The model with another shape, and its configuration; the same ones if no other shape is asked for.

    Position embeddings of pictures are interpolated, as open_clip and timm do, and so are those of texts in towers that
    look both ways. A causal tower keeps its own, so that texts that are short enough are embedded as before, and new ones
    after them begin as its last (Long-CLIP, Zhang et al. 2024, arXiv:2403.15378, keeps the first ones for the same reason).
    Projections of both towers are turned by one matrix, see `_turn`.

    Args:
        model: an open_clip model on the CPU, with its weights.
        config: its `model_cfg`.
        options: of the run, which `check_options` let pass.

    Raises:
        SettingsError: if a text tower of Hugging Face has no place for so many tokens.
    """
    changed = changed_config(config, options)
    if changed == config:
        return model, config
    _check_length(model, options.context_length)
    if changed["vision_cfg"].get("timm_model_name") != config["vision_cfg"].get("timm_model_name"):
        model.visual.set_input_size(options.image_size)  # timm interpolates
    other = build(changed)
    state = model.state_dict()
    _resize_places(state, other)
    _resize_text_places(state, other)
    if changed["embed_dim"] != config["embed_dim"]:
        _turn(state, config, changed["embed_dim"])
    other.load_state_dict(state)
    preprocess = {**open_clip.get_model_preprocess_cfg(model), "size": other.visual.image_size}
    open_clip.set_model_preprocess_cfg(other, preprocess)
    return other, changed


def _side(config: dict[str, Any]) -> int | None:
    """Of the pictures that a model takes as it comes; None if they are no squares."""
    size = config["vision_cfg"].get("image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height) if height == width else None


def _timm_name(config: dict[str, Any], size: int | str) -> str:
    """What timm would call the same tower for another size: many of its names end in one."""
    return re.sub(r"_\d+$", f"_{size}", config["vision_cfg"].get("timm_model_name") or "")


def _check_image_size(config: dict[str, Any], changed: dict[str, Any], size: int) -> None:
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        _check_timm_size(config, changed, size)
        return
    step = RESNET_STRIDE if isinstance(vision.get("layers", 12), list | tuple) else vision.get("patch_size", 16)
    if size % step:
        nearest = [near for near in (size // step * step, (size // step + 1) * step) if near]
        raise SettingsError(
            f"model_options.image_size = {size} is no multiple of {step}, the side of the model's patches. Nearest are "
            f"{' and '.join(map(str, nearest))}"
        )


def _check_timm_size(config: dict[str, Any], changed: dict[str, Any], size: int) -> None:
    """open_clip builds timm's towers for the one size that their name stands for; many take others, and some do not."""
    name, sized = (one["vision_cfg"]["timm_model_name"] for one in (config, changed))
    tower, other = _image_shell(config), _image_shell({**changed, "embed_dim": config["embed_dim"]})
    try:
        if sized != name:
            tower.set_input_size(size)
        other(torch.empty(1, 3, size, size, device="meta"))
        if _shapes(tower) == _shapes(other):
            return
    except (AssertionError, AttributeError, RuntimeError, ValueError):  # each of timm's towers says it in its own way
        pass
    start = _timm_name(config, "")
    sizes = [one.removeprefix(start) for one in timm.list_models(f"{start}*")] if start.endswith("_") else []
    known = ", ".join(sorted(filter(str.isdigit, sizes), key=int)) or str(_side(config))
    raise SettingsError(
        f"model_options.image_size = {size}: the image tower {name} is built for one size, and "
        f"open_clip could not open an artifact with another. Choose one of those it is known in: {known}"
    )


def _shapes(tower: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tower.state_dict().items()}


def _image_shell(config: dict[str, Any]) -> Any:
    """The image tower on torch's meta device, whatever the text tower is."""
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    with torch.device("meta"):
        return build({**config, "text_cfg": text}).visual.eval()


def _check_length(model: Any, length: int | None) -> None:
    """Raises if a text tower of Hugging Face has no place for so many tokens; open_clip's own are given new places."""
    found: Any = getattr(getattr(model, "text", None), "config", None)
    most = getattr(found, "max_position_embeddings", 0)
    if getattr(found, "model_type", "") in ROBERTA:
        most -= found.pad_token_id + 1
    if length is not None and most and length > most:
        raise SettingsError(
            f"model_options.context_length = {length}: the text tower {found.model_type} has places for {most} tokens. "
            f"Choose {most} at most"
        )


def _resize_places(state: State, other: Any) -> None:
    """Those of open_clip's ViT and, which open_clip leaves as they are, of its ResNet's attention pool."""
    resize_pos_embed(state, other)
    key = "visual.attnpool.positional_embedding"
    if key in state:
        side = round((other.visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)
        alike = {"visual.positional_embedding": state[key]}
        resize_pos_embed(alike, SimpleNamespace(visual=SimpleNamespace(grid_size=(side, side))))
        state[key] = alike["visual.positional_embedding"]


def _resize_text_places(state: State, other: Any) -> None:
    """Those of open_clip's own text towers; a class token's place is the last, and stays it."""
    tower = getattr(other, "text", other)
    if not isinstance(getattr(tower, "positional_embedding", None), nn.Parameter):
        return
    key = "positional_embedding" if tower is other else "text.positional_embedding"
    old, last = state[key], int(getattr(tower, "cls_emb", None) is not None)
    words, wanted = old[: len(old) - last], len(tower.positional_embedding) - last
    if tower.attn_mask is not None:
        words = torch.cat([words[:wanted], words[-1:].expand(max(0, wanted - len(words)), -1)])
    elif wanted != len(words):
        words = F.interpolate(words.T[None], size=wanted, mode="linear", align_corners=False)[0].T
    state[key] = torch.cat([words, old[len(old) - last :]])


def _why_no_other_head(config: dict[str, Any], tower: str) -> str:
    """Why a tower's last projection cannot be one of another width in the same architecture; empty if it can."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if tower == "text":
        kind = text.get("hf_proj_type", "mlp") if text.get("hf_model_name") else text.get("proj_type", "linear")
        return "" if kind == "linear" else _no_linear("text", kind)
    if vision.get("timm_model_name"):
        kind, pool = vision.get("timm_proj", "linear") or "timm's own", vision.get("timm_pool", "avg")
        pooled = pool in ("abs_attn", "rot_attn")
        return "" if kind == "linear" and not pooled else _no_linear("image", pool if pooled else kind)
    return _no_linear("image", "attentional_pool") if vision.get("attentional_pool") else ""


def _no_linear(tower: str, kind: str) -> str:
    return f"the {tower} tower does not end in a linear projection of its own ({kind}), so its width cannot change alone"


def _turn(state: State, config: dict[str, Any], width: int) -> None:
    """Multiplies both towers' projections by one matrix of orthonormal columns or rows, so that they go on together.

    For fewer numbers it keeps the directions in which the projections are largest (the principal ones where what is
    projected is white, as after a layer norm); with more, all similarities stay as they are, and there is room to learn.
    """
    heads = {tower: _head(state, config, tower) for tower in ("image", "text")}
    matrices = [state[key].double().T if is_linear else state[key].double() for key, is_linear in heads.values()]
    dimension = config["embed_dim"]
    if width < dimension:
        both = torch.cat([matrix / matrix.norm() for matrix in matrices])
        basis = torch.linalg.svd(both, full_matrices=False).Vh[:width].T
        if basis.shape[1] < width:  # the projections have fewer directions than that: any others will do
            basis = torch.linalg.qr(torch.cat([basis, torch.randn(dimension, width - basis.shape[1]).double()], 1)).Q
    else:
        basis = torch.linalg.qr(torch.randn(width, dimension, dtype=torch.float64)).Q.T
    for (key, is_linear), matrix in zip(heads.values(), matrices, strict=True):
        turned = matrix @ basis
        state[key] = (turned.T if is_linear else turned).to(state[key].dtype).contiguous()
        bias = key.removesuffix("weight") + "bias"
        if is_linear and bias in state:
            state[bias] = (state[bias].double() @ basis).to(state[bias].dtype)


def _head(state: State, config: dict[str, Any], tower: str) -> tuple[str, bool]:
    """Name of a tower's projection, and whether it is a linear layer's: (out, in) instead of (in, out)."""
    vision = config["vision_cfg"]
    own = "text.text_projection" if any(name.startswith("text.") for name in state) else "text_projection"
    if tower == "text":
        name = "text.proj" if config["text_cfg"].get("hf_model_name") else own
    elif vision.get("timm_model_name"):
        name = "visual.head.proj"
    else:
        name = "visual.attnpool.c_proj" if "visual.attnpool.c_proj.weight" in state else "visual.proj"
    return (name, False) if name in state else (f"{name}.weight", True)
