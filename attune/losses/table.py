"""Which losses and miners there are, which data they are for, and what Jina Finetuner's users may call them.

Those of pytorch-metric-learning (Musgrave et al. 2020, arXiv:2008.09164) have its class names; a test compares the two.
"""

from typing import NamedTuple

from attune.choices import did_you_mean


class Kind(NamedTuple):
    """What is known of a loss for pictures and their captions.

    Attributes:
        ours: it is in `attune.losses.contrastive`; otherwise in pytorch-metric-learning.
        picks: it looks at those pairs or triplets alone that it is given: a miner can choose them, and look-alikes can be
            left out. The others look at the whole batch.
        one_each: it takes one caption a picture.
        temperature: it divides similarities by an option of that name, for which the starting model's own is the default.
    """

    ours: bool = False
    picks: bool = True
    one_each: bool = False
    temperature: bool = False


LOSSES = {
    "CLIPLoss": Kind(ours=True, picks=False),
    "SigLIPLoss": Kind(ours=True, picks=False),
    "AngularLoss": Kind(picks=False),
    "CircleLoss": Kind(),
    "ContrastiveLoss": Kind(),
    "DynamicSoftMarginLoss": Kind(),
    "GeneralizedLiftedStructureLoss": Kind(),
    "IntraPairVarianceLoss": Kind(),
    "LiftedStructureLoss": Kind(),
    "MarginLoss": Kind(),
    "MultiSimilarityLoss": Kind(),
    "MultipleLosses": Kind(),
    "NCALoss": Kind(picks=False),
    "NTXentLoss": Kind(temperature=True),
    "SignalToNoiseRatioContrastiveLoss": Kind(),
    "SupConLoss": Kind(temperature=True),
    "TripletMarginLoss": Kind(),
    "TupletMarginLoss": Kind(),
    "VICRegLoss": Kind(picks=False, one_each=True),
}

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
    "NTXLoss": "NTXentLoss",
    "SigLipLoss": "SigLIPLoss",
    "TripleMarginLoss": "TripletMarginLoss",
}
"""Other spellings: Finetuner's documents, open_clip's classes."""

_CLASSES = "it compares each item with its class, and pictures with captions are told apart one by one"
_ONE_KIND = "it compares items of one kind with each other, not pictures with captions"
_WRAPPER = "it wraps another loss. Name that one"
_GONE = "pytorch-metric-learning has it no more"
REFUSED_LOSSES = {
    **dict.fromkeys(
        (
            "ArcFaceLoss",
            "CosFaceLoss",
            "InstanceLoss",
            "LargeMarginSoftmaxLoss",
            "NormalizedSoftmaxLoss",
            "P2SGradLoss",
            "ProxyAnchorLoss",
            "ProxyNCALoss",
            "SoftTripleLoss",
            "SphereFaceLoss",
            "SubCenterArcFaceLoss",
        ),
        _CLASSES,
    ),
    **dict.fromkeys(
        (
            "FastAPLoss",
            "HistogramLoss",
            "ManifoldLoss",
            "NPairsLoss",
            "PNPLoss",
            "RankedListLoss",
            "SmoothAPLoss",
            "ThresholdConsistentMarginLoss",
        ),
        _ONE_KIND,
    ),
    **dict.fromkeys(("CrossBatchMemory", "SelfSupervisedLoss"), _WRAPPER),
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


def _known(name: str, known: tuple[str, ...], refused: dict[str, str]) -> str:
    if name in known:
        return name
    reason = f"is not for this: {refused[name]}" if name in refused else f"is not known{did_you_mean(name, known)}"
    raise ValueError(f"{reason}. Use one of: {', '.join(known)}")
