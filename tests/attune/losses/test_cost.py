import math
from typing import Any

import pytest
import torch

from attune.errors import SettingsError
from attune.losses.batch import EmbeddedBatch
from attune.losses.cost import PAIRED_BYTES, Sizes, check_cost, loss_bytes
from attune.losses.cross_batch_memory import remember
from attune.losses.make import Scope, make_loss
from attune.losses.table import LOSSES, MINERS, REMEMBERING
from attune.training.estimate import activation_bytes
from tests.attune.losses.test_metric_learning import OPTIONS, embeddings

PLAIN = [name for name, kind in LOSSES.items() if name not in ("CrossBatchMemory", "MultipleLosses") and not kind.data]
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # in the library's HistogramLoss


def measured(name: str, options: dict[str, Any], miner: str | None = None, pictures: int = 64, batches: int = 1) -> int:
    """Bytes that the loss of the last of some batches keeps for its backward pass; the others are remembered."""
    torch.manual_seed(0)
    loss = make_loss(name, options, miner, {}, Scope(8, 8))
    for number in range(batches):
        images, texts = embeddings(pictures, pictures, seed=number)
        classes, rows = torch.arange(pictures) % 8, torch.arange(pictures) + number * pictures
        batch = EmbeddedBatch(images, texts, torch.tensor(10.0), torch.tensor(-5.0), classes=classes, rows=rows)
        found = activation_bytes(lambda batch=batch: loss(batch), [])
        remember(loss)
    return found


@pytest.mark.parametrize("name", PLAIN)
def test_no_loss_takes_more_than_is_said_but_little_ones(name: str) -> None:
    options = OPTIONS.get(name, {})

    found = loss_bytes(name, options, None, Sizes(64, 64, 8))

    took = measured(name, options)
    assert took <= 1.3 * found + 100_000
    if name in PAIRED_BYTES:  # what may be refused for
        assert found <= 2 * took


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FastAPLoss", {"num_bins": 100}),
        ("SoftTripleLoss", {}),
        ("SoftTripleLoss", {"centers_per_class": 50}),
        ("SubCenterArcFaceLoss", {"sub_centers": 50}),
    ],
)
def test_bins_and_directions_of_a_class_count(name: str, options: dict[str, Any]) -> None:
    found = loss_bytes(name, options, None, Sizes(64, 64, 8))

    took = measured(name, options)
    assert took / 3 <= found
    assert took <= 1.3 * found + 100_000


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_is_kept_of_batches_before_counts(name: str) -> None:
    options = {"loss": name, "memory_size": 192}

    found = loss_bytes("CrossBatchMemory", options, None, Sizes(64, 64))

    took = measured("CrossBatchMemory", options, batches=4)
    assert took <= 1.3 * found + 100_000
    assert found > 2 * loss_bytes(name, {}, None, Sizes(64, 64))


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", ["TripletMarginLoss", "NTXentLoss"])
def test_what_miners_choose_counts(name: str, miner: str) -> None:
    found = loss_bytes(name, {}, miner, Sizes(64, 64))

    assert measured(name, {}, miner) <= 1.5 * found + 100_000


def test_the_losses_of_a_sum_add_up_and_lengths_count() -> None:
    sizes = Sizes(64, 64)
    options = {"losses": ["CLIPLoss", {"name": "CrossBatchMemory", "loss": {"name": "CircleLoss"}, "memory_size": 9}]}
    parts = loss_bytes("CLIPLoss", {}, None, sizes), loss_bytes("CrossBatchMemory", options["losses"][1], None, sizes)  # type: ignore[arg-type]

    assert loss_bytes("MultipleLosses", options, None, sizes) == sum(parts)
    assert loss_bytes("MultipleLosses", options, None, sizes._replace(lengths=3)) == 3 * sum(parts)


@pytest.mark.parametrize(
    ("loss", "options", "miner", "sizes", "says"),
    [
        ("NTXentLoss", {}, None, Sizes(4096, 4096), "takes about 1,375.7 GB to compare the 4,096 items and 4,096 captions"),
        ("NTXentLoss", {}, None, Sizes(4096, 4096), "a loss that does not compare each right pair with each wrong one"),
        ("TripletMarginLoss", {}, None, Sizes(65_536, 65_536), "micro_batch_size does not change that. Set a smaller batch"),
        (
            "CrossBatchMemory",
            {"loss": "TripletMarginLoss", "memory_size": 1_000_000},
            None,
            Sizes(4096, 4096),
            "with each other and the 1,000,000 that are kept, and there are 256.0 GB for it. A smaller micro_batch",
        ),
        ("MultipleLosses", {"losses": ["CLIPLoss", "InfoNCELoss"]}, None, Sizes(4096, 4096), "as NTXentLoss does"),
        ("NTXentLoss", {}, "AngularMiner", Sizes(512, 512), "Set a smaller batch_size"),
    ],
)
def test_what_no_machine_could_compare_is_refused(
    loss: str, options: dict[str, Any], miner: str | None, sizes: Sizes, says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_cost(loss, options, miner, sizes)

    assert says in str(caught.value)


@pytest.mark.parametrize("name", PLAIN)
def test_a_usual_batch_is_never_refused(name: str) -> None:
    assert check_cost(name, {}, None, Sizes(256, 256, 1000)) < 16 * 10**9
    if name in REMEMBERING:
        assert check_cost("CrossBatchMemory", {"loss": name}, None, Sizes(256, 256)) < 16 * 10**9


def test_labelled_items_alone_are_counted_by_how_many_share_a_class() -> None:
    few, many = (loss_bytes("TripletMarginLoss", {}, None, Sizes(100, 0, classes)) for classes in (50, 2))

    assert math.isclose(many / few, 25)
