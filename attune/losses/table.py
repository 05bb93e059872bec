"""Which losses and miners there are, which data they are for, and what Jina Finetuner's users may call them.

Those of pytorch-metric-learning (Musgrave et al. 2020, arXiv:2008.09164) have its class names; a test compares the two.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from attune.choices import one_of
from attune.errors import SettingsError


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
        masks: it leaves look-alikes out; so does every loss that picks.
        scaled: its similarities are multiplied by the model's own temperature, which learns with it.
        biased: it adds the model's own bias to its similarities, which models of other losses have not.
        taught: what a teacher finds can be a part of its target.
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
    masks: bool = False
    scaled: bool = False
    biased: bool = False
    taught: bool = False


LOSSES = {
    "CLIPLoss": Kind(ours=True, picks=False, alone=False, masks=True, scaled=True, taught=True),
    "SigLIPLoss": Kind(ours=True, picks=False, alone=False, masks=True, scaled=True, biased=True),
    "MultipleNegativesRankingLoss": Kind(ours=True, picks=False, alone=False, masks=True),
    "SimCSELoss": Kind(ours=True, picks=False, negatives=False, alone=False, twice=True, masks=True),
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

MADE_OF_OTHERS = ("CrossBatchMemory", "MultipleLosses")
"""Those that other losses are named for."""

NEED_OPTIONS = (*MADE_OF_OTHERS, "RankedListLoss")
"""Those that cannot be used by their names alone."""

ALONE = tuple(name for name, kind in LOSSES.items() if kind.alone)
"""Those for labelled items without captions; of `MultipleLosses` and `CrossBatchMemory`, where what they are made of is."""

REMEMBERING = tuple(
    name for name, kind in LOSSES.items() if not (kind.ours or kind.classes or kind.one_each or name in MADE_OF_OTHERS)
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


def read_part(setting: str, given: Any) -> tuple[str, dict[str, Any]]:
    """The name of a loss among the options of another, and its own options.

    Args:
        setting: where it stands, for the message.
        given: its name, or a name with options.

    Raises:
        SettingsError: if it is neither, or there is no such loss.
    """
    spec = {"name": given} if isinstance(given, str) else given
    if not isinstance(spec, dict) or "name" not in spec:
        raise SettingsError(
            f"{setting} = {given!r}: give the name of a loss, or a name with options such as "
            "{'name': 'TripletMarginLoss', 'margin': 0.1}"
        )
    try:
        name = check_loss(str(spec["name"]))
    except ValueError as error:
        raise SettingsError(f"{setting}: {spec['name']!r} {error}") from None
    return name, {option: value for option, value in spec.items() if option != "name"}


class Part(NamedTuple):
    """A loss that is made of no others.

    Attributes:
        name: in `LOSSES`.
        options: its own.
        kept: items of batches before that it looks at.
    """

    name: str
    options: Mapping[str, Any]
    kept: int = 0


def parts_of(loss: str, options: Mapping[str, Any], kept: int = 0) -> list[Part]:
    """The losses that a loss is made of: itself, but of `MultipleLosses` several, and of `CrossBatchMemory` one.

    Of `auto` nothing is known, nor of what `read_part` refuses.

    Args:
        loss: its name.
        options: its own.
        kept: items of batches before that it looks at.
    """
    if loss not in MADE_OF_OTHERS:
        return [Part(loss, options, kept)] if loss in LOSSES else []
    given = options.get("losses") if loss == "MultipleLosses" else [options.get("loss")]
    if loss == "CrossBatchMemory":
        kept = options.get("memory_size", MEMORY_SIZE)
    found = []
    for one in given if isinstance(given, list) else []:
        with suppress(SettingsError):
            found += parts_of(*read_part("loss_options", one), kept)
    return found


def kinds_of(loss: str, options: Mapping[str, Any]) -> list[Kind]:
    """What is known of the losses that a loss is made of; see `parts_of`."""
    return [LOSSES[part.name] for part in parts_of(loss, options)]


def has_weights(loss: str, options: Mapping[str, Any]) -> bool:
    """Whether a loss learns something of its own, such as a direction for each class."""
    parts = [(LOSSES[part.name], part.options) for part in parts_of(loss, options)]
    return any((kind.classes and not kind.meets) or own.get("learn_beta") for kind, own in parts)


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
