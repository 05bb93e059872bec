"""The two towers as training calls them: normalisation, mixed precision, short captions."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from attune.models.clip import Clip
from attune.models.text import encode_by_length, encode_text
from attune.training.kernels import replace_kernels


class Towers:
    """Encoders of one model with one recipe.

    Args:
        clip: the model.
        precision: `bf16` or `fp32`.
        compiled: whether to compile the towers at their first use.
    """

    def __init__(self, clip: Clip, precision: str, compiled: bool = False) -> None:
        self.clip = clip
        self.precision = precision
        if clip.device.type == "cpu" and precision == "bf16":
            replace_kernels()
        wrap: Callable[..., Callable[..., Tensor]] = torch.compile if compiled else lambda function: function
        self._image = wrap(clip.model.encode_image) if "image" in clip.towers else None
        # A compiled tower is compiled for every new shape.
        encode = encode_by_length if clip.device.type == "cpu" and not compiled else encode_text
        self._text = wrap(lambda tokens: encode(clip.model, tokens))

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit-length embeddings (images, dim) of uint8 pixels (images, 3, height, width), or of the tokens of texts.

        Embeddings (images, dim) of a locked tower pass through: they were computed once, before the first step. Given
        embeddings (images, input_dim) are what an `mlp` takes.
        """
        if images.ndim == 2 and not self.clip.input_dim:
            return self.encode_texts(images)
        assert self._image is not None  # data of pictures is refused without it
        if self.clip.input_dim:
            with self._autocast():
                return self._image(images, normalize=True)
        pixels = self.clip.normalise(images)
        with self._autocast():
            # Convolutions are up to twice as fast in this order of memory.
            return self._image(pixels.contiguous(memory_format=torch.channels_last), normalize=True)

    def encode_texts(self, texts: Tensor) -> Tensor:
        """Unit-length embeddings (texts, dim) of int64 tokens (texts, length), trimmed or not, or of matches' pixels.

        Embeddings pass through.
        """
        if texts.ndim == 4 or self.clip.input_dim:
            return self.encode_images(texts)
        if texts.is_floating_point():
            return texts
        with self._autocast():
            return self._text(texts)

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.clip.device.type, torch.bfloat16, enabled=self.precision == "bf16")
