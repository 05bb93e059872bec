"""Random changes to a batch of training pictures: each picture its own, all of them in a few tensor operations."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Strength:
    """How far a picture may change; each value is drawn evenly between minus and plus this."""

    degrees: float
    log_scale: float
    log_aspect: float
    shift: float  # share of the side
    brightness: float
    contrast: float
    saturation: float
    hue_degrees: float


STRENGTHS = {
    "light": Strength(6, 0.10, 0.05, 0.05, 0.10, 0.15, 0.20, 5),
    "strong": Strength(15, 0.20, 0.10, 0.10, 0.20, 0.30, 0.50, 15),
}

# RGB to YIQ, in which a turn of hue is a rotation and saturation a factor (the NTSC colour space).
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_TO_RGB = torch.linalg.inv(_TO_YIQ)


def augment(pixels: Tensor, strength: str) -> Tensor:
    """Pictures turned, scaled, shifted and recoloured at random; `mirror` is apart, since captions say left and right.

    Args:
        pixels: uint8 (batch, 3, height, width).
        strength: `none`, `light` or `strong`.

    Returns:
        float32 of the same shape, 0 to 1. Where a picture was moved away its nearest edge pixels continue.
    """
    images = pixels.float() / 255
    if strength == "none":
        return images
    chosen = STRENGTHS[strength]
    return _recolour(_move(images, chosen), chosen).clamp_(0, 1)


def mirror(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Pictures (batch, 3, height, width), those mirrored of which `chosen`, bool (batch,), is true."""
    return torch.where(chosen[:, None, None, None], pixels.flip(-1), pixels)


def _move(images: Tensor, strength: Strength) -> Tensor:
    """One affine map a picture: rotation, scale, aspect, shift."""
    angle = _draw(images, math.radians(strength.degrees))
    scale, aspect = _draw(images, strength.log_scale), _draw(images, strength.log_aspect)
    width, height = torch.exp(scale + aspect), torch.exp(scale - aspect)
    theta = torch.empty(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle) * width, -torch.sin(angle) * height
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle) * width, torch.cos(angle) * height
    # affine_grid's coordinates run from -1 to 1: a side is 2 long.
    theta[:, 0, 2], theta[:, 1, 2] = _draw(images, 2 * strength.shift), _draw(images, 2 * strength.shift)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recolour(images: Tensor, strength: Strength) -> Tensor:
    """Brightness, contrast, saturation and hue as one affine map of a picture's colours."""
    angle = _draw(images, math.radians(strength.hue_degrees))
    saturation = 1 + _draw(images, strength.saturation)
    turn = torch.zeros(len(images), 3, 3, device=images.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle) * saturation
    turn[:, 2, 1] = torch.sin(angle) * saturation
    turn[:, 1, 2] = -turn[:, 2, 1]
    contrast = (1 + _draw(images, strength.contrast)).view(-1, 1, 1)
    mix = contrast * (_TO_RGB.to(images) @ turn @ _TO_YIQ.to(images))  # (batch, 3, 3)
    colours = images.flatten(2)  # (batch, 3, height x width)
    level = colours.mean((1, 2), keepdim=True)
    offset = (1 - contrast) * level + _draw(images, strength.brightness).view(-1, 1, 1)
    return torch.baddbmm(offset, mix, colours).view_as(images)


def _draw(images: Tensor, most: float) -> Tensor:
    """One number a picture, between minus and plus `most`: (batch,)."""
    return (torch.rand(len(images), device=images.device) * 2 - 1) * most
