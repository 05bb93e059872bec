"""Where each parameter of a CLIP model sits: in which tower, and how far from the input."""

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from attune.kinds import TOWERS, Tower

# What may stand before the first block's name: the wrappers of open_clip, timm and Hugging Face.
_WRAPPER = re.compile(r"(?:(?:trunk|transformer|encoder|features|model)\.)*")
# A numbered block: open_clip's resblocks.3, timm's blocks.3, stages.1, layers.1, s1, denseblock1, ResNet's layer1,
# Hugging Face's encoder.layer.3, block.3. Anchored: a patch embedding may have stages of its own.
_BLOCK = re.compile(r"(?:resblocks|blocks?|stages?|layers?|level|denseblock|s)\.?\d+(?=\.)")


@dataclass(frozen=True)
class Place:
    """Where a parameter sits.

    Attributes:
        tower: ``both`` is `logit_scale` and `logit_bias`, which belong to neither.
        depth: 0 for embeddings and stem, 1 to ``of - 1`` for the numbered blocks in the order of the data, ``of`` for
            what follows them: final norms, pools, projections. 0 where the tower is ``both``.
        of: the tower's last depth, one more than it has blocks.
    """

    tower: Tower | Literal["both"]
    depth: int
    of: int


def locate(model: nn.Module) -> dict[str, Place]:
    """The place of each parameter, by its name in `model.named_parameters()`.

    A block is what the architecture numbers at its outermost level: one residual block of a transformer, but one whole
    stage of a convolutional or hierarchical network (ResNet's layer1 to layer4). CoCa's caption decoder reads the
    text tower's output and counts as part of its last depth. A tower whose architecture numbers nothing is all depth 0
    but for its head or projection.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`; its weights may be on the meta device.
    """
    places = {}
    inside: dict[Tower, dict[str, str]] = {"image": {}, "text": {}}  # full name -> name within the tower
    for name, _ in model.named_parameters():
        if name in ("logit_scale", "logit_bias"):
            places[name] = Place("both", 0, 0)
        elif name.startswith("visual."):
            inside["image"][name] = name.removeprefix("visual.")
        else:  # open_clip's `CLIP` has the parts of its text tower on itself
            inside["text"][name] = name.removeprefix("text.")
    for tower, names in inside.items():
        for name, depth, last in _depths(names):
            places[name] = Place(tower, depth, last)
    return places


def towers_of(model: nn.Module) -> tuple[Tower, ...]:
    """The towers that a model has."""
    found = {place.tower for place in locate(model).values()}
    return tuple(tower for tower in TOWERS if tower in found)


def blocks(model: nn.Module, tower: Tower) -> int:
    """Number of numbered blocks in a tower; 0 if its architecture numbers none."""
    return max((place.of - 1 for place in locate(model).values() if place.tower == tower), default=0)


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Factor of the learning rate of each parameter, by name: ``decay ** (of - depth)``, layer-wise learning-rate decay.

    Layers near the input hold what transfers and move least. From ELECTRA (Clark et al. 2020, arXiv:2003.10555) and
    BEiT (Bao et al. 2021, arXiv:2106.08254); for CLIP, Dong et al. 2022 (arXiv:2212.06138), who take 0.6 for ViT-B/16.

    Args:
        model: an open_clip model.
        decay: above 0, at most 1; 1 leaves all learning rates equal. Projections, `logit_scale` and `logit_bias` always
            have the factor 1.
    """
    return {name: decay ** (place.of - place.depth) for name, place in locate(model).items()}


def _depths(names: dict[str, str]) -> list[tuple[str, int, int]]:
    """Full name, depth and last depth of a tower's parameters, given its names in the order of registration."""
    within = {name: inner[_WRAPPER.match(inner).end() :] for name, inner in names.items()}  # type: ignore[union-attr]
    block_of = {name: found[0] for name, inner in within.items() if (found := _BLOCK.match(inner))}
    numbers = {block: number for number, block in enumerate(dict.fromkeys(block_of.values()), start=1)}
    last = len(numbers) + 1

    depths, seen = [], 0
    for name, inner in within.items():
        part = inner.partition(".")[0]
        if name in block_of:
            depth = seen = numbers[block_of[name]]
        # The order of registration is that of the data, with two exceptions: open_clip's `CLIP` registers its token
        # embedding after the blocks, and a module's own matrices come before its children.
        elif part == "token_embedding":
            depth = 0
        elif part == "head" or "proj" in part:
            depth = last
        else:  # before the first block, after the last, or with the block that it follows
            depth = last if 0 < seen == len(numbers) else seen
        depths.append((name, depth, last))
    return depths
