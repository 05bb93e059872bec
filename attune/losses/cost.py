"""What the comparisons of a batch take of memory: known from sizes alone, before anything is loaded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from attune.errors import SettingsError
from attune.losses.table import LOSSES, Part, parts_of

MOST_BYTES = 256 * 10**9
"""More than any GPU has; what takes more is refused before anything is loaded."""

PAIR_BYTES = {
    **{name: 10 for name, kind in LOSSES.items() if kind.ours},
    "RankedListLoss": 70,
    "SignalToNoiseRatioContrastiveLoss": 100,
}
"""What a loss keeps for its backward pass of two items that it compares; measured. Others keep 40 or less."""

PAIRED_BYTES = {"LiftedStructureLoss": 10, "NTXentLoss": 10, "PNPLoss": 66, "TupletMarginLoss": 6}
"""Likewise, of a right pair and a wrong one: these compare each with each, which grows with the cube of the batch."""

BIN_BYTES = 19
"""Likewise, of two items and an edge of a bin, of `FastAPLoss`."""

CLASS_BYTES = 30
"""Likewise, of an item and what stands for a class."""

CENTERS = {"SoftTripleLoss": ("centers_per_class", 10), "SubCenterArcFaceLoss": ("sub_centers", 3)}
"""Losses with several directions for a class: the option that says how many, and its default."""

GRAPH_BYTES = 80
"""Likewise, of two items, or classes, of `ManifoldLoss`: it inverts the graph of all of both."""

TRIPLET_MINERS = ("AngularMiner", "TripletMarginMiner")
"""These look through all triplets, and may choose as many."""
FEW_MINERS = ("BatchEasyHardMiner", "BatchHardMiner", "DistanceWeightedMiner")
"""These choose a few for each item."""
AT_ONCE = 2**31
"""Bytes at most of a mask of all triplets; above, pytorch-metric-learning goes through them item by item."""


class Sizes(NamedTuple):
    """Of a batch.

    Attributes:
        pictures: or labelled items.
        texts: captions and negatives; 0 of labelled items alone.
        classes: that there are in the data.
        lengths: of embeddings that are compared; see `attune.losses.matryoshka`.
    """

    pictures: int
    texts: int
    classes: int = 1
    lengths: int = 1


def loss_bytes(loss: str, options: Mapping[str, Any], miner: str | None, sizes: Sizes) -> int:
    """Bytes that a step's loss takes, roughly and rather more than less; in micro-batches it takes as many.

    Args:
        loss: in `attune.losses.table.LOSSES`.
        options: its own; `make_loss` takes them.
        miner: in `attune.losses.table.MINERS`, if there is one.
        sizes: of a batch.
    """
    return sizes.lengths * sum(_bytes(part, miner, sizes) for part in parts_of(loss, options))


def check_cost(
    loss: str, options: Mapping[str, Any], miner: str | None, sizes: Sizes, available_bytes: int = MOST_BYTES
) -> int:
    """What `loss_bytes` says, if there is so much.

    Raises:
        SettingsError: if there is less, with what to do.
    """
    found = loss_bytes(loss, options, miner, sizes)
    if found <= available_bytes:
        return found
    parts = parts_of(loss, options)
    kept = max(part.kept for part in parts)
    batch = f"{sizes.pictures:,} items" + f" and {sizes.texts:,} captions" * bool(sizes.texts)
    those = f" with each other and the {kept:,} that are kept" if kept else " with each other"
    advice = "Set a smaller memory_size or batch_size" if kept else "Set a smaller batch_size"
    if paired := sorted({part.name for part in parts} & PAIRED_BYTES.keys()):
        advice += f", or use a loss that does not compare each right pair with each wrong one as {', '.join(paired)} does"
    raise SettingsError(
        f"loss = {loss!r} takes about {found / 1e9:,.1f} GB to compare the {batch} of a batch{those}, and there are "
        f"{max(0, available_bytes) / 1e9:,.1f} GB for it. A smaller micro_batch_size does not change that. {advice}"
    )


def _bytes(part: Part, miner: str | None, sizes: Sizes) -> int:
    """Of a loss that is made of no others."""
    name, kept, kind, (pictures, texts, classes, _) = part.name, part.kept, LOSSES[part.name], sizes
    if name == "ManifoldLoss":
        return GRAPH_BYTES * (pictures + texts + classes) ** 2
    if kind.classes and not kind.meets:
        return CLASS_BYTES * (pictures + texts) * classes * _centers(part)
    answers = max(pictures, texts) + kept
    right = texts or max(pictures, pictures * answers // classes)
    compared = texts * (answers + pictures + kept) if texts else pictures * answers  # in both directions, or among items
    if (kind.triplets or name == "SmoothAPLoss") and not texts:  # each right pair with each item
        compared *= right // pictures
    found = 0
    if miner in TRIPLET_MINERS and kind.picks:
        right, found = compared // 2, min(AT_ONCE, pictures * answers**2)
    elif miner in FEW_MINERS and kind.picks:
        right = 1
    each = BIN_BYTES * (part.options.get("num_bins", 10) + 1) if name == "FastAPLoss" else PAIR_BYTES.get(name, 40)
    return found + each * compared + PAIRED_BYTES.get(name, 0) * compared * right


def _centers(part: Part) -> int:
    """Directions of a class."""
    option, usual = CENTERS.get(part.name, ("", 1))
    found: int = part.options.get(option, usual)
    return found
