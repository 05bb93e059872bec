"""Values of options that no loss can be trained with are refused before anything is made of them."""

import re
import time
from typing import Any

import pytest

from attune.errors import SettingsError
from attune.losses.cost import Sizes
from attune.losses.make import make_loss
from attune.losses.parts import _SAME, PARTS, _class_of, _options_of, make_part
from attune.losses.table import ALONE, LOSSES, MINERS
from attune.losses.trial import try_loss
from attune.losses.values import VALUES, check_value
from tests.attune.losses.test_metric_learning import OPTIONS

PAIRS, SEVERAL, ALONE_SIZES = Sizes(8, 8), Sizes(8, 20), Sizes(8, 0)
NAN, INF = float("nan"), float("inf")
OF_PARTS = [name for _, names in PARTS.values() for name in names]
NESTED = (*PARTS, *_SAME, "reducers")
NEED_SOME = ("MultipleReducers", "ThresholdReducer")
OF_THE_LIBRARY = [
    name for name, kind in LOSSES.items() if not kind.ours and name not in ("MultipleLosses", "CrossBatchMemory")
]


@pytest.mark.parametrize("name", [*OF_THE_LIBRARY, *MINERS, *OF_PARTS])
def test_every_option_is_a_part_or_has_a_rule_that_its_default_passes(name: str) -> None:
    for option, default in _options_of(_class_of(name)).items():
        if option in NESTED:
            continue
        assert option in VALUES, option
        if default != "required":
            check_value(option, name, option, default, default)


@pytest.mark.parametrize("name", sorted({*OF_THE_LIBRARY, *MINERS, *OF_PARTS} - {*OPTIONS, *NEED_SOME}))
def test_every_option_can_be_given_its_default(name: str) -> None:
    known = _options_of(_class_of(name))
    counts = {"num_classes": 3, "embedding_size": 4, "descriptors_dim": 4, "K": 3, "l": 3}
    given = {option: default for option, default in known.items() if default != "required" and option not in NESTED}

    make_part("options", name, given, counts)


@pytest.mark.parametrize("sizes", [PAIRS, SEVERAL, ALONE_SIZES], ids=["pairs", "several", "alone"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_passes_as_it_comes(loss: str, sizes: Sizes) -> None:
    if (LOSSES[loss].one_each and sizes is SEVERAL) or (sizes is ALONE_SIZES and loss not in ALONE):
        pytest.skip("is not for such data")
    options = OPTIONS.get(loss, {})
    if loss == "MultipleLosses" and not sizes.texts:
        options = {"losses": ["NTXentLoss", "ArcFaceLoss"]}
    try_loss(loss, options, None, {}, sizes)


@pytest.mark.parametrize("sizes", [PAIRS, SEVERAL, ALONE_SIZES], ids=["pairs", "several", "alone"])
@pytest.mark.parametrize("miner", MINERS)
def test_every_miner_passes_as_it_comes(miner: str, sizes: Sizes) -> None:
    for loss in ("TripletMarginLoss", "ContrastiveLoss"):
        try_loss(loss, {}, miner, {}, sizes)


@pytest.mark.parametrize(
    ("loss", "options", "says"),
    [
        ("LargeMarginSoftmaxLoss", {"margin": 10**9}, "loss_options.margin = 1000000000: give a whole number from 1 to 10"),
        ("LargeMarginSoftmaxLoss", {"margin": 0.5}, "whole number"),
        ("SphereFaceLoss", {"margin": 10**7}, "whole number from 1 to 10"),
        ("SubCenterArcFaceLoss", {"sub_centers": 10**9}, "whole number from 1 to 100"),
        ("SoftTripleLoss", {"centers_per_class": 10**6}, "whole number from 1 to 100"),
        ("HistogramLoss", {"n_bins": 10**9}, "whole number from 2 to 1,000"),
        ("FastAPLoss", {"num_bins": 10**9}, "whole number from 1 to 1,000"),
        ("FastAPLoss", {"num_bins": 0}, "whole number from 1 to 1,000"),
        ("FastAPLoss", {"num_bins": 10.0}, "whole number from 1 to 1,000"),
        ("TripletMarginLoss", {"triplets_per_anchor": 10**7}, "'all', or a whole number from 1 to 1,000"),
        ("TripletMarginLoss", {"triplets_per_anchor": 0}, "'all', or a whole number from 1 to 1,000"),
        ("TripletMarginLoss", {"triplets_per_anchor": "most"}, "'all', or a whole number from 1 to 1,000"),
        *(
            ("TripletMarginLoss", {"margin": value}, "give a number from -100 to 100")
            for value in ("0.1", [1], None, NAN, INF, True, 10**400)
        ),
        ("TripletMarginLoss", {"swap": "no"}, "loss_options.swap = 'no': give true or false"),
        ("TripletMarginLoss", {"distance": {"name": "LpDistance", "p": 0}}, "loss_options.distance.p = 0: give a number"),
        ("LiftedStructureLoss", {"pos_margin": {"a": 1}}, "loss_options.pos_margin = {'a': 1}: give a number"),
        ("ArcFaceLoss", {"scale": -64}, "loss_options.scale = -64: give a number"),
        ("PNPLoss", {"variant": "Dss"}, "loss_options.variant = 'Dss' (did you mean 'Ds'?): give one of: Ds, Dq"),
        ("MultipleLosses", {"losses": [{"name": "FastAPLoss", "num_bins": 10**9}]}, "num_bins = 1000000000: give"),
        ("MultipleLosses", {"losses": ["CLIPLoss"] * 21}, "20 at most"),
        (
            "MultipleLosses",
            {"losses": [{"name": "CrossBatchMemory", "loss": "NTXentLoss", "memory_size": 600_000}] * 2},
            "losses: all memory_size together = 1200000: give a whole number from 1 to 1,000,000",
        ),
        ("MultipleLosses", {"losses": ["CLIPLoss"], "weights": [INF]}, "loss_options.weights = [inf]: give a number"),
        ("CrossBatchMemory", {"loss": {"name": "MarginLoss", "triplets_per_anchor": 10**7}}, "whole number"),
        ("ContrastiveLoss", {"reducer": {"name": "MultipleReducers", "reducers": dict.fromkeys(range(21))}}, "20 reducers"),
    ],
)
def test_a_value_outside_is_refused_before_anything_is_made(loss: str, options: dict[str, Any], says: str) -> None:
    began = time.monotonic()

    with pytest.raises(SettingsError, match=re.escape(says)):
        make_loss(loss, options)

    assert time.monotonic() - began < 5  # the library is loaded in it


@pytest.mark.parametrize(
    ("miner", "options", "says"),
    [
        ("UniformHistogramMiner", {"num_bins": 10**10}, "miner_options.num_bins = 10000000000: give a whole number"),
        ("UniformHistogramMiner", {"num_bins": 0}, "whole number from 1 to 200"),
        ("BatchEasyHardMiner", {"allowed_pos_range": [1]}, "allowed_pos_range = [1]: give [lowest, highest], each a number"),
        ("BatchEasyHardMiner", {"allowed_pos_range": "ab"}, "give [lowest, highest]"),
        ("BatchEasyHardMiner", {"allowed_neg_range": [1, 0]}, "give [lowest, highest]"),
        (
            "TripletMarginMiner",
            {"type_of_triplets": "semi-hard"},
            "type_of_triplets = 'semi-hard' (did you mean 'semihard'?): give one of: hard, semihard, easy, all",
        ),
        ("TripletMarginMiner", {"type_of_triplets": ["x"]}, "type_of_triplets = ['x']: give one of"),
        ("AngularMiner", {"angle": 1e9}, "angle = 1000000000.0: give a number from 0 to 90"),
        ("HDCMiner", {"filter_percentage": 0}, "filter_percentage = 0: give a number from 0.001 to 1"),
    ],
)
def test_a_miners_value_outside_is_refused(miner: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        make_loss("TripletMarginLoss", {}, miner, options)


def test_parts_within_parts_end_somewhere() -> None:
    reducer: dict[str, Any] = {"name": "PerAnchorReducer"}
    for _ in range(300):
        reducer = {"name": "PerAnchorReducer", "reducer": reducer}

    with pytest.raises(SettingsError, match="no parts within 5 others"):
        make_loss("ContrastiveLoss", {"reducer": reducer})


@pytest.mark.parametrize(
    ("loss", "options", "sizes", "says"),
    [
        ("ContrastiveLoss", {"reducer": "DivisorReducer"}, PAIRS, "KeyError: 'divisor'"),
        ("TripletMarginLoss", {"reducer": "PerAnchorReducer"}, PAIRS, "NotImplementedError"),
        ("TripletMarginLoss", {"reducer": "PerAnchorReducer"}, ALONE_SIZES, "NotImplementedError"),
        ("ContrastiveLoss", {"reducer": "PerAnchorReducer"}, SEVERAL, "IndexError"),
        ("CrossBatchMemory", {"loss": {"name": "ContrastiveLoss", "reducer": "PerAnchorReducer"}}, PAIRS, "IndexError"),
        ("HistogramLoss", {"delta": 0.9}, PAIRS, "RuntimeError"),
        ("DynamicSoftMarginLoss", {"distance": {"name": "LpDistance", "power": 2}}, PAIRS, "RuntimeError"),
        ("NTXentLoss", {"distance": {"name": "CosineSimilarity", "power": 0.5}}, PAIRS, "gradients are no numbers"),
    ],
)
def test_what_cannot_be_computed_is_refused_after_a_trial(
    loss: str, options: dict[str, Any], sizes: Sizes, says: str
) -> None:
    with pytest.raises(SettingsError, match=r"^loss_options = .* cannot be used with ") as caught:
        try_loss(loss, options, None, {}, sizes)

    assert says in str(caught.value)
