"""Which losses and miners there are, which data they are for, and what Jina Finetuner's users may call them.

Those of pytorch-metric-learning (Musgrave et al. 2020, arXiv:2008.09164) have its class names; a test compares the two.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from attune.choices import one_of


class Kind(NamedTuple):
    """What is known of a loss for pictures and their captions.

    Attributes:
        ours: it is in `attune.losses.contrastive` or `attune.losses.graded`; otherwise in pytorch-metric-learning.
        picks: it looks at those pairs or triplets alone that it is given: a miner can choose them, and look-alikes can be
            left out. The others look at the whole batch.
        one_each: it takes one caption a picture.
        classes: it compares pictures and captions alike with the classes that the pictures are labelled with.
        meets: of those, one to which classes show only where several items of them meet in a batch.
        triplets: it compares each right answer with each wrong one.
        temperature: it divides similarities by an option of that name, for which the starting model's own is the default.
        data: what of each pair it takes besides that it belongs together: a `score`, a `margin` to a negative, or nothing.
        negatives: whether negatives that come with the data can be among the texts of its batch.
        alone: whether it can be used on labelled items of one kind alone, which have no captions.
        twice: it takes single texts, each embedded twice: what belongs to a text is its other embedding.
    """

    ours: bool = False
    picks: bool = True
    one_each: bool = False
    classes: bool = False
    meets: bool = False
    triplets: bool = False
    temperature: bool = False
    data: Literal["", "score", "margin"] = ""
    negatives: bool = True
    alone: bool = True
    twice: bool = False


LOSSES = {
    "CLIPLoss": Kind(ours=True, picks=False, alone=False),
    "SigLIPLoss": Kind(ours=True, picks=False, alone=False),
    "MultipleNegativesRankingLoss": Kind(ours=True, picks=False, alone=False),
    "SimCSELoss": Kind(ours=True, picks=False, negatives=False, alone=False, twice=True),
    "CoSENTLoss": Kind(ours=True, picks=False, data="score", negatives=False, alone=False),
    "CosineSimilarityLoss": Kind(ours=True, picks=False, data="score", negatives=False, alone=False),
    "MarginMSELoss": Kind(ours=True, picks=False, data="margin", alone=False),
    "AngularLoss": Kind(picks=False),
    "CircleLoss": Kind(),
    "ContrastiveLoss": Kind(),
    "CrossBatchMemory": Kind(),
    "DynamicSoftMarginLoss": Kind(triplets=True),
    "GeneralizedLiftedStructureLoss": Kind(),
    "IntraPairVarianceLoss": Kind(),
    "LiftedStructureLoss": Kind(),
    "MarginLoss": Kind(triplets=True),
    "MultiSimilarityLoss": Kind(),
    "MultipleLosses": Kind(),
    "NCALoss": Kind(picks=False),
    "NTXentLoss": Kind(temperature=True),
    "SignalToNoiseRatioContrastiveLoss": Kind(),
    "SmoothAPLoss": Kind(picks=False),
    "SupConLoss": Kind(temperature=True),
    "ThresholdConsistentMarginLoss": Kind(),
    "TripletMarginLoss": Kind(triplets=True),
    "TupletMarginLoss": Kind(),
    "VICRegLoss": Kind(picks=False, one_each=True, negatives=False, alone=False),
    **dict.fromkeys(
        (
            "ArcFaceLoss",
            "CosFaceLoss",
            "LargeMarginSoftmaxLoss",
            "ManifoldLoss",
            "NormalizedSoftmaxLoss",
            "P2SGradLoss",
            "ProxyAnchorLoss",
            "ProxyNCALoss",
            "SoftTripleLoss",
            "SphereFaceLoss",
            "SubCenterArcFaceLoss",
        ),
        Kind(picks=False, classes=True, negatives=False),
    ),
    **dict.fromkeys(
        ("FastAPLoss", "HistogramLoss", "NPairsLoss", "PNPLoss", "RankedListLoss"),
        Kind(picks=False, classes=True, meets=True, negatives=False),
    ),
}

ALONE = tuple(name for name, kind in LOSSES.items() if kind.alone)
"""Those for labelled items without captions; of `MultipleLosses` and `CrossBatchMemory`, where what they are made of is."""

REMEMBERING = tuple(
    name
    for name, kind in LOSSES.items()
    if not (kind.ours or kind.classes or kind.one_each or name in ("CrossBatchMemory", "MultipleLosses"))
)
"""Those that `CrossBatchMemory` may be of."""

MEMORY_SIZE = 1024
"""Pictures, and texts, that it keeps if not told otherwise: its library's own."""

MINERS = (
    "AngularMiner",
    "BatchEasyHardMiner",
    "BatchHardMiner",
    "DistanceWeightedMiner",
    "HDCMiner",
    "MultiSimilarityMiner",
    "PairMarginMiner",
    "TripletMarginMiner",
    "UniformHistogramMiner",
)

ALIASES = {
    "ClipLoss": "CLIPLoss",
    "InfoNCELoss": "NTXentLoss",
    "MultipleNegativeRankingLoss": "MultipleNegativesRankingLoss",
    "NTXLoss": "NTXentLoss",
    "SigLipLoss": "SigLIPLoss",
    "SimCSE": "SimCSELoss",
    "TripleMarginLoss": "TripletMarginLoss",
}
"""Other spellings: Finetuner's documents and classes, open_clip's classes."""

_GONE = "pytorch-metric-learning has it no more"
REFUSED_LOSSES = {
    "InstanceLoss": "in the library it takes the number of a class for a place in the batch",
    "SelfSupervisedLoss": "it wraps another loss. Name that one",
    **dict.fromkeys(("BaseLossWrapper", "BaseMetricLossFunction", "GenericPairLoss"), "it is a base class"),
    "CentroidTripletLoss": _GONE,
}
REFUSED_MINERS = {
    "BaseMiner": "it is a base class",
    "EmbeddingsAlreadyPackagedAsTriplets": "batches hold pictures and captions, not triplets",
    **dict.fromkeys(("BaseSubsetBatchMiner", "BaseTupleMiner", "MaximumLossMiner"), _GONE),
}
"""Names that users may know, and why they are refused."""


def check_loss(name: str) -> str:
    """The loss's own name, if there is such a loss.

    Raises:
        ValueError: if there is not, with those that there are.
    """
    return _known(ALIASES.get(name, name), tuple(LOSSES), REFUSED_LOSSES)


def check_miner(name: str) -> str:
    """The name itself, if there is such a miner.

    Raises:
        ValueError: if there is not, with those that there are.
    """
    return _known(name, MINERS, REFUSED_MINERS)


def names_of(loss: str, options: Mapping[str, Any]) -> list[str]:
    """Names of the known losses that a loss is made of: its own, or those of `MultipleLosses`."""
    names = [loss]
    if loss == "MultipleLosses":
        parts = options.get("losses")
        given = parts if isinstance(parts, list) else []
        names = [str(part.get("name") if isinstance(part, dict) else part) for part in given]
    return [name for name in (ALIASES.get(name, name) for name in names) if name in LOSSES]


def kinds_of(loss: str, options: Mapping[str, Any]) -> list[Kind]:
    """What is known of the losses that a loss is made of; see `names_of`."""
    return [LOSSES[name] for name in names_of(loss, options)]


def needs_classes(loss: str, options: Mapping[str, Any]) -> bool:
    """Whether every picture has to be labelled for a loss."""
    return any(kind.classes for kind in kinds_of(loss, options))


def needs_meeting(loss: str, options: Mapping[str, Any], alone: bool = False) -> bool:
    """Whether a loss learns nothing of batches in which no items of a class meet.

    Args:
        loss: its name.
        options: its own.
        alone: whether the data are labelled items of one kind, without captions.
    """
    return any(kind.meets or (alone and kind.alone and not kind.classes) for kind in kinds_of(loss, options))


def _known(name: str, known: tuple[str, ...], refused: dict[str, str]) -> str:
    if name in refused:
        raise ValueError(f"is not for this: {refused[name]}. Use one of: {', '.join(known)}")
    return one_of(name, known)
