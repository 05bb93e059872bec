"""timm's image models as encoders: an image tower, a temperature, and no text tower."""

from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attune.models.pooling import GEM_LEAST, GEM_POWER

START_SCALE = 1 / 0.07
"""The temperature of a model that was trained without one: CLIP's own start (arXiv:2103.00020)."""


class ImageEncoder(nn.Module):
    """A timm model with what training asks of a CLIP: `encode_image`, `visual` and `logit_scale`.

    Args:
        trunk: gives embeddings (images, dim), by its pooling and, if it has one, its classifier, here a projection.
        image_size: height and width of the pictures.
    """

    def __init__(self, trunk: nn.Module, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.visual = ImageTower(trunk, image_size)
        self.logit_scale = nn.Parameter(torch.tensor(START_SCALE).log())

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Embeddings (images, dim) of normalised pixels (images, 3, height, width)."""
        found: Tensor = self.visual(images)
        return F.normalize(found, dim=-1) if normalize else found


class ImageTower(nn.Module):
    """The trunk under the name that open_clip gives it, and the size of its pictures."""

    def __init__(self, trunk: nn.Module, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """What the trunk gives."""
        found: Tensor = self.trunk(images)
        return found


def build_image_encoder(config: dict[str, Any]) -> ImageEncoder:
    """The model of a configuration with random weights, on torch's default device.

    Args:
        config: see `attune.models.timm_models.config_of`.
    """
    trunk = build_trunk(config)
    if config["pooler"] == "gem":
        pool_by_generalised_mean(trunk)
    height, width = config["image_size"]
    return ImageEncoder(trunk, (height, width))


def build_trunk(config: dict[str, Any], **arguments: Any) -> Any:
    """The model of a configuration, as timm makes it.

    Args:
        config: as above.
        arguments: of `timm.create_model`, besides the configuration's or in their place.
    """
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in config["model_args"].items()}
    return timm.create_model(config["architecture"], **{"num_classes": config["num_classes"], **own, **arguments})


def generalised_mean(features: Tensor, places: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """GeM pooling (Radenovic et al. 2017, arXiv:1711.02512): the cubic mean over places, of what is above 0.

    Args:
        features: of any shape; below `GEM_LEAST`, they count as that.
        places: dimensions to pool.
        keepdim: whether these stay, with the length 1.
    """
    # In half precision the cube of the least would be 0, and the gradient of its root endless.
    powers = features.float().clamp(min=GEM_LEAST).pow(GEM_POWER)
    return powers.mean(places, keepdim).pow(1 / GEM_POWER)


def pool_by_generalised_mean(trunk: nn.Module) -> None:
    """Puts GeM in the place of a trunk's own pooling; what follows that stays.

    Raises:
        ValueError: if the trunk pools in a way of its own.
    """
    if isinstance(trunk, VisionTransformer | Eva):
        trunk.pool = partial(_pool_tokens, first=trunk.num_prefix_tokens)
    else:
        pooling = pooling_layer(trunk)
        if pooling is None:
            raise ValueError(f"GeM finds no pooling to take the place of in a {type(trunk).__name__}")
        places = getattr(pooling.pool, "dim", (2, 3))
        pooling.pool = _PoolPlaces(places, keepdim=not getattr(pooling.pool, "flatten", False))


def pooling_layer(trunk: nn.Module) -> SelectAdaptivePool2d | None:
    """The one layer with which timm's convolutional networks pool; None if a model pools in another way."""
    found = [module for module in trunk.modules() if isinstance(module, SelectAdaptivePool2d)]
    return found[0] if len(found) == 1 else None


class _PoolPlaces(nn.Module):
    def __init__(self, places: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.places = tuple(places)
        self.keepdim = keepdim

    def forward(self, features: Tensor) -> Tensor:
        return generalised_mean(features, self.places, self.keepdim)


def _pool_tokens(tokens: Tensor, first: int) -> Tensor:
    """Of (images, tokens, dim), those of places; class and register tokens come before them."""
    return generalised_mean(tokens[:, first:], (1,))
