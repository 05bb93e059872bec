import math

import pytest
import torch
from torch import nn

from attune.losses.batch import EmbeddedBatch, Loss
from attune.losses.cross_batch_memory import remember
from attune.losses.make import Scope, make_loss
from attune.losses.table import REMEMBERING
from tests.attune.losses.test_metric_learning import SCALE, embeddings


def steps(loss: Loss, numbers: range, rows: range = range(12)) -> list[float]:
    found = []
    for number in numbers:
        images, texts = embeddings(seed=number)
        found.append(loss(EmbeddedBatch(images, texts, SCALE, rows=torch.tensor(rows) + 12 * number)).item())
        remember(loss)
    return found


def test_a_memory_looks_at_the_other_kinds_embeddings_of_batches_before() -> None:
    """Contrast over distances: three steps, the third with 24 pictures and texts of before, by hand."""
    memory = make_loss("CrossBatchMemory", {"loss": {"name": "ContrastiveLoss", "neg_margin": 3}}, scope=Scope(2, 8))
    steps(memory, range(2))
    old_images, old_texts = (torch.cat(each).detach() for each in zip(*(embeddings(seed=n) for n in range(2)), strict=True))
    images, texts = embeddings(seed=2)

    found = memory(EmbeddedBatch(images, texts, SCALE, rows=torch.arange(24, 36)))

    expected = []
    for queries, answers in ((images, torch.cat([texts, old_texts])), (texts, torch.cat([images, old_images]))):
        distances = torch.cdist(queries, answers)
        own = torch.arange(36) == torch.arange(12)[:, None]
        expected.append(distances[own].mean() + (3 - distances[~own]).mean())
    torch.testing.assert_close(found, sum(expected) / 2)


def test_a_memory_knows_a_picture_that_comes_again() -> None:
    """Second time around its own texts of before are right answers: nothing is left to push away that was not."""
    options = {"loss": {"name": "ContrastiveLoss", "pos_margin": 0, "neg_margin": 0}}  # right answers alone cost anything
    memory = make_loss("CrossBatchMemory", options, scope=Scope(2, 8))
    images, texts = embeddings()
    other = embeddings(seed=1)[1]

    memory(EmbeddedBatch(images, other, SCALE, rows=torch.arange(12)))
    remember(memory)
    found = memory(EmbeddedBatch(images, texts, SCALE, rows=torch.arange(12)))

    to_text = torch.cat([(images - texts).norm(dim=1), (images - other).norm(dim=1)]).mean()
    to_image = (images - texts).norm(dim=1).mean()  # both times the pictures are the same
    torch.testing.assert_close(found, (to_text + to_image) / 2)


def test_a_memory_forgets_the_oldest_and_goes_on_where_it_was() -> None:
    options = {"loss": "TripletMarginLoss", "memory_size": 30}
    unbroken, before, resumed = (make_loss("CrossBatchMemory", options, scope=Scope(2, 8)) for _ in range(3))
    assert isinstance(before, nn.Module)
    assert isinstance(resumed, nn.Module)

    whole = steps(unbroken, range(6))
    steps(before, range(3))
    resumed.load_state_dict(before.state_dict())

    assert steps(resumed, range(3, 6)) == whole[3:]
    kept = set(resumed.state_dict()["images_labels"].tolist())
    assert kept == set(range(42, 72))


def test_a_memory_keeps_a_batch_only_once_its_step_was_taken() -> None:
    """What is looked at only, is no number or was skipped leaves nothing behind."""
    memory = make_loss("CrossBatchMemory", {"loss": "TripletMarginLoss"}, scope=Scope(2, 8))
    assert isinstance(memory, nn.Module)
    (images, texts), (skipped, _) = embeddings(), embeddings(seed=1)

    memory.eval()(EmbeddedBatch(images, texts, SCALE))
    remember(memory)
    memory.train()(EmbeddedBatch(images * math.nan, texts, SCALE))
    memory(EmbeddedBatch(skipped, texts, SCALE))
    assert memory.state_dict()["images_count"] == memory.state_dict()["texts_count"] == 0
    memory(EmbeddedBatch(images, texts, SCALE))
    remember(memory)
    remember(memory)

    assert memory.state_dict()["images_count"] == memory.state_dict()["texts_count"] == 12
    assert memory.state_dict()["images_kept"][:12].equal(images)


def test_a_memory_leaves_out_look_alikes_of_the_batch_and_takes_negatives_of_the_data() -> None:
    images, texts = (each.detach() for each in embeddings(3, 5))
    positives = torch.tensor([0, -1, 1, 2, -1]) == torch.arange(3)[:, None]
    ignored = torch.zeros(3, 5, dtype=torch.bool)
    ignored[0, 2] = True
    inner = {"name": "ContrastiveLoss", "neg_margin": 3}
    memory = make_loss("CrossBatchMemory", {"loss": inner}, scope=Scope(2, 8))

    first = memory(EmbeddedBatch(images, texts, SCALE, None, positives, ignored))
    remember(memory)
    plain = make_loss("ContrastiveLoss", {"neg_margin": 3})(EmbeddedBatch(images, texts, SCALE, None, positives, ignored))
    second = memory(EmbeddedBatch(images, texts, SCALE, None, positives, ignored))

    torch.testing.assert_close(first, plain)
    assert second.isfinite()
    assert second.item() != first.item()
    assert isinstance(memory, nn.Module)
    assert memory.state_dict()["texts_labels"][:5].tolist() == [0, -1, 1, 2, -1]


def test_memories_within_other_losses_are_kept_too() -> None:
    options = {"losses": ["CLIPLoss", {"name": "CrossBatchMemory", "loss": "TripletMarginLoss"}]}
    loss = make_loss("MultipleLosses", options, scope=Scope(2, 8))
    assert isinstance(loss, nn.Module)

    steps(loss, range(2))

    assert [int(value) for name, value in loss.state_dict().items() if name.endswith("count")] == [24, 24]


def test_many_triplets_are_listed_without_a_cube_of_all_answers() -> None:
    """64 queries among 20,064 answers: a mask of all triplets would have 2.6e10 numbers, and there are 1.3e6."""
    memory = make_loss("CrossBatchMemory", {"loss": "TripletMarginLoss", "memory_size": 20_000}, scope=Scope(2, 8))
    assert isinstance(memory, nn.Module)
    kept = [nn.functional.normalize(torch.randn(20_000, 8), dim=-1) for _ in range(2)]
    memory(EmbeddedBatch(kept[0][:2], kept[1][:2], SCALE))
    state = memory.state_dict()
    state |= {f"{kind}_kept": kept[number] for number, kind in enumerate(("images", "texts"))}
    state |= {f"{kind}_labels": torch.arange(100, 20_100) for kind in ("images", "texts")}
    memory.load_state_dict({name: value * 0 + 20_000 if name.endswith("count") else value for name, value in state.items()})
    images, texts = embeddings(64, 64)

    memory.eval()(EmbeddedBatch(images, texts, SCALE)).backward()

    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("name", REMEMBERING)
def test_every_loss_of_a_memory_goes_on_after_items_alone_as_after_pairs(name: str) -> None:
    for alone in (False, True):
        memory = make_loss("CrossBatchMemory", {"loss": name, "memory_size": 30}, scope=Scope(3, 8, alone))
        assert isinstance(memory, nn.Module)
        for seed in range(4):
            images, texts = embeddings(seed=seed)
            found = memory(EmbeddedBatch(images, texts[: 0 if alone else 12], SCALE, classes=torch.arange(12) % 3))
            found.backward()
            remember(memory)
            assert found.isfinite()
            assert images.grad is not None
            assert images.grad.isfinite().all()
            assert images.grad.abs().max() > 0

        assert memory.state_dict()["images_count"] == 48
        assert alone != ("texts_count" in memory.state_dict())


def test_a_memory_of_items_alone_looks_within_the_batch_and_at_what_is_kept() -> None:
    """By hand: contrast over distances, second step with the 12 items of the first."""
    inner = {"name": "ContrastiveLoss", "neg_margin": 3}
    memory = make_loss("CrossBatchMemory", {"loss": inner}, scope=Scope(3, 8, alone=True))
    (before, _), (items, _), classes = embeddings(seed=1), embeddings(seed=2), torch.arange(12) % 3
    none = items.new_zeros(0, 8)

    memory(EmbeddedBatch(before, none, SCALE, classes=classes))
    remember(memory)
    found = memory(EmbeddedBatch(items, none, SCALE, classes=classes))

    same, others = classes[:, None] == classes, ~torch.eye(12, dtype=torch.bool)
    within, across = torch.cdist(items, items), torch.cdist(items, before)
    first = within[same & others].mean() + (3 - within[~same]).mean()
    second = across[same].mean() + (3 - across[~same]).mean()
    torch.testing.assert_close(found, (first + second) / 2)


@pytest.mark.parametrize("name", [name for name in REMEMBERING if name != "DynamicSoftMarginLoss"])  # it learns as it goes
def test_a_memory_without_any_of_the_batchs_classes_adds_nothing(name: str) -> None:
    memory, plain = (
        make_loss(*given, scope=Scope(8, 8, alone=True))
        for given in (("CrossBatchMemory", {"loss": {"name": name}, "memory_size": 12}), (name, {}))
    )
    none, classes = torch.empty(0, 8), torch.arange(12) // 3
    memory(EmbeddedBatch(embeddings()[0], none, SCALE, classes=classes + 4))
    remember(memory)
    batch = EmbeddedBatch(embeddings(seed=1)[0], none, SCALE, classes=classes)

    torch.testing.assert_close(memory(batch), plain(batch))
