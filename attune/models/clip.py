"""A CLIP, or a model of one tower, with all that belongs to it: weights, tokenizer, preprocessing, configuration."""

import json
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize, ToTensor

from attune.errors import ModelError, SettingsError
from attune.models.architecture import CONFIG, TEXT_TOWER, WRITERS, read_config
from attune.models.hub import hub_folder
from attune.models.library import library_of
from attune.models.options import with_options
from attune.models.sentence_files import load_sentence_folder, save_sentence_folder
from attune.models.sentence_folder import read_sentence_folder
from attune.models.source import ModelSource, find_model
from attune.models.text import encode_text, trim
from attune.models.timm_folder import read_folder, write_folder
from attune.models.timm_models import config_of as timm_config_of
from attune.models.timm_models import load_image_encoder, preprocess_of, timm_transforms
from attune.models.tokens import Tokens
from attune.models.untrusted import read_as_data, shorter_lengths
from attune.models.weights import check_archives, forbid_unpickling, load_weights, save_weights
from attune.settings import ModelOptions

WEIGHTS = "open_clip_model.safetensors"
MATRYOSHKA = "matryoshka_dims"
"""What Attune adds to a folder's configuration, where it applies; open_clip does not look at it."""


@dataclass
class Clip:
    """A loaded model.

    Attributes:
        name: as the user gave it.
        model: an open_clip `CLIP` or `CustomTextCLIP`; an `ImageEncoder` or a `SentenceEncoder`, which have one tower.
        tokenizer: list of texts in, int64 tensor (texts, context_length) out, or up to the longest, see
            `attune.models.tokens`; None without a text tower.
        config: open_clip's `model_cfg`, or that of `attune.models.timm_models` or `.sentence`; builds the same again.
        preprocess: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize mode; of timm's models, crop mode;
            empty without an image tower.
        matryoshka_dims: lengths at which the first numbers of its embeddings were trained to be embeddings of their own.
        towers: what it embeds.
    """

    name: str
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]
    matryoshka_dims: tuple[int, ...] = ()
    towers: tuple[Literal["image", "text"], ...] = ("image", "text")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def library(self) -> str:
        """That builds and opens it: `open_clip` or `timm`."""
        return library_of(self.config)

    @cached_property
    def resize(self) -> Compose:
        """The geometric part of its library's evaluation preprocessing, picture to picture: resize, crop, RGB."""
        steps = timm_transforms(self.preprocess) if self.library == "timm" else _open_clip_transforms(self.preprocess)
        return Compose([step for step in steps if not isinstance(step, Normalize | ToTensor)])

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 0-255 or float 0-1 pixels (batch, 3, height, width) as the image tower takes them, float32."""
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        mean, std = (torch.tensor(self.preprocess[key], device=pixels.device).view(1, 3, 1, 1) for key in ("mean", "std"))
        return (scaled - mean) / std

    @torch.inference_mode()
    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Embeddings of uint8 pixels (images, 3, height, width): float32 (images, dim), unit length, in fp32 arithmetic."""
        found = []
        with evaluating(self.model):
            for start in range(0, len(pixels), batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size])).to(self.device)
                found.append(self.model.encode_image(self.normalise(batch), normalize=True).float().cpu())
        return torch.cat(found).numpy()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embeddings of texts: float32 (texts, dim), unit length, in fp32 arithmetic; of equal tokens they are equal.

        Raises:
            ModelError: if it has no text tower.
        """
        if self.tokenizer is None:
            raise ModelError(f"The model {self.name!r} embeds pictures and no texts: it has no text tower")
        tokens = Tokens(self.tokenizer, texts)
        # Each once: in batches of different length those of equal texts would differ by a rounding.
        distinct, places = tokens.distinct()
        found = []
        with evaluating(self.model):
            for batch in tokens.batches(distinct, batch_size):
                found.append(encode_text(self.model, trim(batch, self.model).to(self.device)).float().cpu())
        return torch.cat(found)[torch.from_numpy(places)].numpy()

    def save_weights(self, path: Path, dtype: torch.dtype | None = None) -> None:
        """All weights and buffers as safetensors; floating point ones as `dtype` if given."""
        save_weights(path, self.model.state_dict(), dtype)

    def load_weights(self, path: Path) -> None:
        """Weights that `save_weights` wrote, in the precision of the model."""
        self.model.load_state_dict(load_weights(path))

    def save_folder(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Weights, configuration and tokenizer, so that its library opens the folder: open_clip as `local-dir:FOLDER`."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.library == "timm":
            write_folder(folder, self.model, self.config, self.preprocess, self.matryoshka_dims, dtype)
            return
        if self.library == "sentence_transformers":
            save_sentence_folder(folder, self.model, self.tokenizer, self.config, self.matryoshka_dims, dtype)
            return
        self.save_weights(folder / WEIGHTS, dtype)
        config: dict[str, Any] = {"model_cfg": self.config, "preprocess_cfg": self.preprocess}
        if self.matryoshka_dims:
            config[MATRYOSHKA] = list(self.matryoshka_dims)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        if self.config["text_cfg"].get("hf_model_name"):
            # open_clip's names it alone, and would ask the hub what it is.
            self.model.text.config.to_json_file(folder / TEXT_TOWER, use_diff=False)
        if hasattr(self.tokenizer, "save_pretrained"):  # Hugging Face tokenizers; CLIP's own is part of open_clip
            self.tokenizer.save_pretrained(str(folder))


@contextmanager
def evaluating(model: nn.Module) -> Any:
    """Puts the model in evaluation mode, and back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def load_clip(name: str, device: str = "cpu", seed: int = 0, options: ModelOptions | None = None) -> Clip:
    """Loads a model by name; see `attune.models.source` for the names.

    Args:
        name: model name.
        device: torch device.
        seed: decides the random weights of a `#scratch` model.
        options: what of it is to be other.

    Raises:
        ModelError: if it does not exist, cannot be fetched, or its weights do not fit.
        SettingsError: if it cannot have the options.
    """
    options = options or ModelOptions()
    source = find_model(name)
    torch.manual_seed(seed)
    forbid_unpickling()
    load = _LOADERS[source.library]
    try:
        return load(name, source, device, options)
    except (SettingsError, ModelError):
        raise
    except Exception as error:  # the libraries and the hub raise many kinds; each means the same to the user
        if isinstance(error, UnpicklingError) or "weights_only" in str(error):
            raise ModelError(
                f"The model {name!r} holds Python objects besides weights, which could run code when they are read: they "
                "are not. Where you trust it, save its weights alone: safetensors.torch.save_file(model.state_dict(), ...)"
            ) from error
        raise ModelError(
            f"The model {name!r} could not be loaded: {error}. Weights named by a tag are fetched from the hub once and "
            "cached; without a network use `starter`, a local folder, or `NAME#path/to/checkpoint`"
        ) from error


def _load_open_clip(name: str, source: ModelSource, device: str, options: ModelOptions) -> Clip:
    config = config_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # open_clip warns of settings that `_config` has already put right
        check_archives(source.folder or Path(source.weights))
        given = _with_text_tower(config, source.folder)
        _refuse_code_of_text_tower(given)
        model = open_clip.create_model(
            source.open_clip_name,
            pretrained=source.weights or None,
            load_weights=not source.scratch,
            require_pretrained=not source.scratch,  # else open_clip leaves random weights where it finds none
            force_quick_gelu=bool(config.get("quick_gelu", False)),
            pretrained_text=False,
            device="cpu" if options.changes_shape else device,
            weights_only=True,  # tensors, and no other Python objects
            **({} if given is config else {"text_cfg": {**given["text_cfg"], "hf_model_pretrained": False}}),
        )
        model, changed = with_options(model, given, options)
        if given is not config:  # the artifact names the tower as the hub does
            changed["text_cfg"]["hf_model_name"] = config["text_cfg"]["hf_model_name"]
        model.to(device)
        # transformers would ask on the terminal whether to run code that it finds beside a tokenizer.
        safe = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
        tokenizer = open_clip.get_tokenizer(source.open_clip_name, options.context_length, **safe)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    dims = _matryoshka_dims(source) if changed["embed_dim"] == config["embed_dim"] else ()
    return Clip(name, model, tokenizer, changed, json.loads(json.dumps(preprocess)), dims, source.towers)


def _load_timm(name: str, source: ModelSource, device: str, options: ModelOptions) -> Clip:
    if source.folder or source.weights:
        check_archives(source.folder or Path(source.weights))
    model, config = load_image_encoder(source, options)
    kept = source.folder if config["embed_dim"] == config_of(source)["embed_dim"] and not source.scratch else None
    dims = read_folder(kept).matryoshka_dims if kept else ()
    return Clip(name, model.to(device), None, config, preprocess_of(config, source), dims, source.towers)


def _load_sentence_encoder(name: str, source: ModelSource, device: str, options: ModelOptions) -> Clip:
    folder = source.folder or hub_folder(source.hub, weights=not source.scratch)
    model, tokenizer, config, dims = load_sentence_folder(folder, source.scratch, options)
    return Clip(name, model.to(device), tokenizer, config, {}, dims, source.towers)


_LOADERS = {"open_clip": _load_open_clip, "sentence_transformers": _load_sentence_encoder, "timm": _load_timm}


def load_folder(folder: Path, device: str = "cpu") -> Clip:
    """Loads an exported model."""
    return load_clip(str(folder), device)


def _matryoshka_dims(source: ModelSource) -> tuple[int, ...]:
    """What an artifact says of its shorter embeddings; nothing of random weights."""
    if source.folder is None or source.scratch:
        return ()
    config = read_config(source.folder)
    with read_as_data(source.folder / CONFIG, WRITERS):
        return shorter_lengths(config.get(MATRYOSHKA, []), config["model_cfg"].get("embed_dim", 0))


def config_of(source: ModelSource) -> dict[str, Any]:
    """The model configuration; of open_clip's, with quick_gelu as the weights need it.

    OpenAI's weights were trained with QuickGELU, which their architecture's configuration does not say; a model that
    is built without it loads without an error and is quietly worse.
    """
    if source.library == "timm":
        return timm_config_of(source)
    if source.library == "sentence_transformers":
        return read_sentence_folder(source.folder or hub_folder(source.hub, weights=False)).config
    config: dict[str, Any] = open_clip.get_model_config(source.open_clip_name)
    pretrained = open_clip.get_pretrained_cfg(source.architecture, source.weights) if source.architecture else {}
    if pretrained.get("quick_gelu"):
        config["quick_gelu"] = True
    return config


def _open_clip_transforms(preprocess: dict[str, Any]) -> list[Any]:
    steps: list[Any] = image_transform_v2(PreprocessCfg(**preprocess), is_train=False).transforms
    return steps


def _with_text_tower(config: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The configuration that builds the text tower as the folder says, where it does: else the hub is asked what it is."""
    text = config["text_cfg"]
    if folder is None or not text.get("hf_model_name") or not (folder / TEXT_TOWER).is_file():
        return config
    return {**config, "text_cfg": {**text, "hf_model_name": str(folder / TEXT_TOWER)}}


def _refuse_code_of_text_tower(config: dict[str, Any]) -> None:
    """Raises if the hub's text tower that the configuration names brings code of its own to run."""
    tower = config["text_cfg"].get("hf_model_name")
    if not tower:
        return
    from transformers import AutoConfig

    if getattr(AutoConfig.from_pretrained(tower, trust_remote_code=False), "auto_map", None):
        raise ValueError(f"the text tower {tower!r} would run code of its own")
