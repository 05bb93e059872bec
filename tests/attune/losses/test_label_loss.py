"""Losses over labelled items of one kind, which have no captions."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from attune.errors import SettingsError
from attune.losses.batch import EmbeddedBatch
from attune.losses.label_loss import LabelLoss
from attune.losses.make import Scope, make_loss
from attune.losses.table import ALONE, LOSSES, MINERS, needs_meeting
from tests.attune.losses.test_metric_learning import OPTIONS as OF_PAIRS
from tests.attune.losses.test_metric_learning import PICKERS, SCALE, embeddings

OPTIONS: dict[str, Any] = OF_PAIRS | {
    "MultipleLosses": {"losses": ["TripletMarginLoss", {"name": "SupConLoss", "temperature": 0.1}]},
    "CrossBatchMemory": {"loss": {"name": "TripletMarginLoss", "margin": 0.3}, "memory_size": 20},
    "TripletMarginLoss": {"margin": 0.3},
}
COMPARING = [name for name in ALONE if LOSSES[name].meets or not LOSSES[name].classes]
CLASSES = torch.arange(12) // 4
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # in the library's HistogramLoss


def alone(items: torch.Tensor, classes: torch.Tensor = CLASSES) -> EmbeddedBatch:
    return EmbeddedBatch(items, items.new_zeros(0, items.shape[1]), SCALE, classes=classes)


def made(name: str, miner: str | None = None, miner_options: dict[str, Any] | None = None) -> Any:
    torch.manual_seed(0)
    return make_loss(name, OPTIONS.get(name, {}), miner, miner_options, Scope(12, 8, alone=True))


@pytest.mark.parametrize("name", [name for name in ALONE if name != "IntraPairVarianceLoss"])  # that one is for company
def test_every_loss_for_items_alone_brings_classes_together(name: str) -> None:
    """Three classes of four items: at first as far from their own as from others."""
    loss = made(name)
    items = torch.randn(12, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    optimizer = torch.optim.Adam([items, *loss.parameters()], 0.05)

    def nearness() -> float:
        with torch.no_grad():
            similar = nn.functional.normalize(items, dim=-1) @ nn.functional.normalize(items, dim=-1).T
        same = CLASSES[:, None] == CLASSES
        return (similar[same & ~torch.eye(12, dtype=torch.bool)].mean() - similar[~same].mean()).item()

    before = nearness()
    for _ in range(100):
        optimizer.zero_grad()
        order = torch.randperm(12)  # some look at the first items of each class alone
        found = loss(alone(nn.functional.normalize(items, dim=-1)[order], CLASSES[order]))
        found.backward()
        optimizer.step()
        assert found.isfinite()
        assert items.grad is not None
        assert items.grad.isfinite().all()

    assert nearness() > before + 0.3


@pytest.mark.parametrize("name", [name for name in COMPARING if name not in ("CrossBatchMemory", "MultipleLosses")])
def test_a_loss_for_items_alone_is_the_librarys_over_labels(name: str) -> None:
    loss = made(name)
    items, _ = embeddings()
    assert isinstance(loss, LabelLoss)
    of_library = copy.deepcopy(loss.loss)

    torch.manual_seed(1)
    found = loss(alone(items))

    torch.manual_seed(1)
    torch.testing.assert_close(found, of_library(items, CLASSES))


@pytest.mark.parametrize("miner", [None, "TripletMarginMiner"])
def test_triplets_are_those_of_the_batch(miner: str | None) -> None:
    items, _ = embeddings()
    distances = torch.cdist(items, items)
    costs = torch.stack(
        [
            distances[i, j] - distances[i, k] + 0.3
            for i in range(12)
            for j in range(12)
            for k in range(12)
            if i != j and i // 4 == j // 4 and i // 4 != k // 4
        ]
    )

    found = made("TripletMarginLoss", miner, {"margin": 0.3} if miner else {})(alone(items))

    assert len(costs) == 12 * 3 * 8
    torch.testing.assert_close(found, costs[costs > 0].mean())


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", PICKERS)
def test_every_miner_serves_every_loss_for_items_alone(name: str, miner: str) -> None:
    loss = made(name, miner)

    for classes in (CLASSES, torch.arange(12), torch.zeros(12, dtype=torch.int64), torch.tensor([0, *range(11)])):
        items, _ = embeddings()
        found = loss(alone(items, classes))
        found.backward()
        assert found.isfinite()
        assert items.grad is not None
        assert items.grad.isfinite().all()


@pytest.mark.parametrize("name", COMPARING)
def test_a_batch_in_which_no_two_items_share_a_class_teaches_nothing(name: str) -> None:
    items, _ = embeddings()

    found = made(name)(alone(items, torch.arange(12)))
    found.backward()

    assert found.item() == 0
    assert items.grad is not None
    assert (items.grad == 0).all()


@pytest.mark.parametrize("name", ALONE)
def test_a_batch_of_one_class_is_no_error(name: str) -> None:
    items, _ = embeddings()

    found = made(name)(alone(items, torch.zeros(12, dtype=torch.int64)))
    found.backward()

    assert found.isfinite()
    assert items.grad is not None
    assert items.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if not kind.alone])
def test_losses_over_pairs_are_refused_for_items_alone_with_those_that_are_not(name: str) -> None:
    for loss, options in ((name, {}), ("MultipleLosses", {"losses": ["SupConLoss", name]})):
        with pytest.raises(SettingsError, match=f"{name} takes pairs, .* without captions. Use one of: AngularLoss, Circle"):
            make_loss(loss, options, scope=Scope(3, 8, alone=True))


def test_items_without_classes_are_refused() -> None:
    items, _ = embeddings()

    with pytest.raises(ValueError, match="TripletMarginLoss takes items with classes"):
        made("TripletMarginLoss")(alone(items)._replace(classes=None))


def test_losses_that_compare_items_need_some_of_a_class_to_meet() -> None:
    options = {"losses": ["ArcFaceLoss", "TripletMarginLoss"]}

    assert needs_meeting("TripletMarginLoss", {}, alone=True)
    assert needs_meeting("MultipleLosses", options, alone=True)
    assert needs_meeting("FastAPLoss", {})
    assert not needs_meeting("TripletMarginLoss", {})
    assert not needs_meeting("ArcFaceLoss", {}, alone=True)
