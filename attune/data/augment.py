"""Changes to a batch of training pictures: each picture its own, all of them in a few tensor operations."""

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


DRAWS = 9
"""Numbers that decide what becomes of a picture."""

ROWS = 64
"""Pictures that are changed at a time: as floats they take four times the memory."""


def augment(pixels: Tensor, strength: str, draws: Tensor) -> Tensor:
    """Pictures turned, scaled, shifted and recoloured; `mirror` is apart, since captions say left and right.

    Args:
        pixels: uint8 (batch, 3, height, width).
        strength: `light` or `strong`.
        draws: float32 (batch, `DRAWS`), -1 to 1: how far each picture goes in each way it may change.

    Returns:
        uint8 of the same shape. Where a picture was moved away its nearest edge pixels continue.
    """
    chosen = STRENGTHS[strength]
    parts = zip(torch.split(pixels, ROWS), torch.split(draws, ROWS), strict=True)
    return torch.cat([_change(part.float() / 255, chosen, drawn) for part, drawn in parts])


def mirror(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Pictures (batch, 3, height, width), those mirrored of which `chosen`, bool (batch,), is true."""
    return torch.where(chosen[:, None, None, None], pixels.flip(-1), pixels)


def _change(images: Tensor, strength: Strength, draws: Tensor) -> Tensor:
    moved = _move(images, strength, draws[:, :5])
    return (_recolour(moved, strength, draws[:, 5:]).clamp_(0, 1) * 255).round_().to(torch.uint8)


def _move(images: Tensor, strength: Strength, draws: Tensor) -> Tensor:
    """One affine map a picture: rotation, scale, aspect, shift."""
    turned, scaled, stretched, right, down = draws.unbind(1)
    angle = turned * math.radians(strength.degrees)
    scale, aspect = scaled * strength.log_scale, stretched * strength.log_aspect
    width, height = torch.exp(scale + aspect), torch.exp(scale - aspect)
    theta = torch.empty(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle) * width, -torch.sin(angle) * height
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle) * width, torch.cos(angle) * height
    # affine_grid's coordinates run from -1 to 1: a side is 2 long.
    theta[:, 0, 2], theta[:, 1, 2] = right * 2 * strength.shift, down * 2 * strength.shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recolour(images: Tensor, strength: Strength, draws: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue as one affine map of a picture's colours."""
    hue, saturated, contrasted, lit = draws.unbind(1)
    angle = hue * math.radians(strength.hue_degrees)
    saturation = 1 + saturated * strength.saturation
    turn = torch.zeros(len(images), 3, 3, device=images.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle) * saturation
    turn[:, 2, 1] = torch.sin(angle) * saturation
    turn[:, 1, 2] = -turn[:, 2, 1]
    contrast = (1 + contrasted * strength.contrast).view(-1, 1, 1)
    mix = contrast * (_TO_RGB.to(images) @ turn @ _TO_YIQ.to(images))  # (batch, 3, 3)
    colours = images.flatten(2)  # (batch, 3, height x width)
    level = colours.mean((1, 2), keepdim=True)
    offset = (1 - contrast) * level + (lit * strength.brightness).view(-1, 1, 1)
    return torch.baddbmm(offset, mix, colours).view_as(images)
