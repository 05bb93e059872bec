"""A CLIP, or a model of one tower, with all that belongs to it: weights, tokenizer, preprocessing, configuration."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize, ToTensor

from attune.errors import ModelError, SettingsError
from attune.kinds import Tower
from attune.models.libraries import LIBRARIES, functions_of
from attune.models.library import Library, library_of
from attune.models.loaded import Loaded
from attune.models.options import check_options
from attune.models.source import ModelSource, find_model
from attune.models.text import encode_text, trim
from attune.models.tokens import Tokens
from attune.models.weights import forbid_unpickling, load_weights, save_weights
from attune.settings import ModelOptions


@dataclass
class Clip:
    """A loaded model.

    Attributes:
        name: as the user gave it.
        model: an open_clip `CLIP` or `CustomTextCLIP`; an `ImageEncoder`, a `SentenceEncoder` or an `Mlp`, which have
            one tower.
        tokenizer: list of texts in, int64 tensor (texts, context_length) out, or up to the longest, see
            `attune.models.tokens`; None without a text tower.
        config: see `config_of`; builds the same again.
        preprocess: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize mode; of timm's models, crop mode;
            empty where no pictures are taken.
        matryoshka_dims: lengths at which the first numbers of its embeddings were trained to be embeddings of their own.
        towers: what it embeds.
    """

    name: str
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]
    matryoshka_dims: tuple[int, ...] = ()
    towers: tuple[Tower, ...] = ("image", "text")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def library(self) -> Library:
        """That builds and opens it."""
        return library_of(self.config)

    @property
    def input_dim(self) -> int:
        """Numbers in the embeddings that it takes in the place of pictures; 0 if it takes pictures, or texts alone."""
        return int(self.config["input_dim"]) if self.library == "mlp" else 0

    @cached_property
    def resize(self) -> Compose:
        """The geometric part of its library's evaluation preprocessing, picture to picture: resize, crop, RGB."""
        steps = functions_of(self.config).transforms(self.preprocess)
        return Compose([step for step in steps if not isinstance(step, Normalize | ToTensor)])

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 0-255 or float 0-1 pixels (batch, 3, height, width) as the image tower takes them, float32.

        Embeddings in their place, (batch, input_dim), are taken as they are.
        """
        if self.input_dim:
            return pixels
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        mean, std = (torch.tensor(self.preprocess[key], device=pixels.device).view(1, 3, 1, 1) for key in ("mean", "std"))
        return (scaled - mean) / std

    @torch.inference_mode()
    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Embeddings of uint8 pixels (images, 3, height, width): float32 (images, dim), unit length, in fp32 arithmetic.

        An `mlp` takes float32 embeddings (images, input_dim) instead.
        """
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
            what = "given embeddings" if self.input_dim else "pictures"
            raise ModelError(f"The model {self.name!r} embeds {what} and no texts: it has no text tower")
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
        loaded = Loaded(self.model, self.tokenizer, self.config, self.preprocess, self.matryoshka_dims)
        functions_of(self.config).save(folder, loaded, dtype)


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
    try:
        check_options(config_of(source), options)
        found = LIBRARIES[source.library].load(source, options)
        found.model.to(device)
        return Clip(name, *found, source.towers)
    except (SettingsError, ModelError):
        raise
    except Exception as error:  # the libraries and the hub raise many kinds; each means the same to the user
        if isinstance(error, UnpicklingError) or "weights_only" in str(error):
            raise ModelError(
                f"The model {name!r} holds Python objects besides weights, which could run code when they are read: they "
                "are not. Where you trust it, save its weights alone: safetensors.torch.save_file(model.state_dict(), ...)"
            ) from error
        said = str(error).rstrip(". \n") or type(error).__name__
        raise ModelError(f"The model {name!r} could not be loaded: {said}. {_what_to_do(source)}") from error


def _what_to_do(source: ModelSource) -> str:
    """About a model that could not be loaded."""
    if source.folder:
        return "Look whether its files are all there, whole, and of one model, and copy them anew"
    if source.hub:
        return "Remove it from huggingface_hub's cache, so that it is fetched anew, or choose another"
    if Path(source.weights).is_file():
        return "Look whether the checkpoint is whole, and of this architecture"
    return (
        "Weights named by a tag are fetched from the hub once and cached; without a network use `starter`, a local folder, "
        "or `NAME#path/to/checkpoint`"
    )


def load_folder(folder: Path, device: str = "cpu") -> Clip:
    """Loads an exported model."""
    return load_clip(str(folder), device)


def config_of(source: ModelSource) -> dict[str, Any]:
    """The configuration of a model as it comes: open_clip's `model_cfg`, or one of ours, which says its `library`.

    Raises:
        ModelError: if a folder's is not to be used, or the hub does not give it.
    """
    return LIBRARIES[source.library].config_of(source)
