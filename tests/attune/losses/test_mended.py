"""Losses of the library that were mended: what they come to is compared with the library's, or with their definition."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

from attune.losses.batch import EmbeddedBatch
from attune.losses.make import Scope, make_loss
from tests.attune.losses.test_metric_learning import SCALE, embeddings

CLASSES = torch.tensor([0, 1, 0, 2, 1, 0, 1, 3])  # of different sizes, one with a single item


def single_items(*, classes: torch.Tensor = CLASSES) -> EmbeddedBatch:
    items, _ = embeddings(len(classes))
    return EmbeddedBatch(items, items.new_zeros(0, items.shape[1]), SCALE, classes=classes)


def test_smooth_average_precision_comes_to_average_precision_where_its_steps_are_steep() -> None:
    batch = single_items()
    similar = (batch.images @ batch.images.T).detach()
    others = ~torch.eye(len(CLASSES), dtype=torch.bool)
    exact = [
        average_precision_score(CLASSES[kept] == CLASSES[query], similar[query][kept])
        for query, kept in enumerate(others)
        if (CLASSES[kept] == CLASSES[query]).any()
    ]

    found = make_loss("SmoothAPLoss", {"temperature": 1e-5}, scope=Scope(alone=True))(batch)

    assert len(exact) == 6
    assert math.isclose(found.item(), 1 - sum(exact) / 6, abs_tol=1e-4)


def test_smooth_average_precision_of_pairs_is_that_of_captions_among_captions_of_others() -> None:
    images, texts = embeddings(4, 4)
    ranks = 1 + (images @ texts.T > (images * texts).sum(1)[:, None]).sum(1)
    back = 1 + (texts @ images.T > (images * texts).sum(1)[:, None]).sum(1)

    found = make_loss("SmoothAPLoss", {"temperature": 1e-5})(EmbeddedBatch(images, texts, SCALE))

    expected = 1 - (1 / torch.cat([ranks, back])).mean()  # one right answer: one over its rank
    assert math.isclose(found.item(), expected.item(), abs_tol=1e-4)


@pytest.mark.parametrize("captions", [1, 2])
def test_swapped_triplets_of_pairs_keep_wrong_captions_from_the_right_one_and_wrong_pictures_from_the_right_one(
    captions: int,
) -> None:
    items, texts = embeddings(4, 4 * captions)
    positives = torch.arange(4)[:, None] == torch.arange(4).repeat(captions)

    def one_way(queries: torch.Tensor, answers: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        violations = [
            0.5 - queries[q] @ answers[p] + torch.maximum(queries[q] @ answers[n], answers[p] @ answers[n])
            for q, p in right.nonzero().tolist()
            for n in (~right[q]).nonzero()[:, 0].tolist()
        ]
        wrong = torch.stack(violations).clamp(min=0)
        return wrong[wrong > 0].mean()

    options = {"swap": True, "margin": 0.5, "distance": "CosineSimilarity"}
    found = make_loss("TripletMarginLoss", options)(EmbeddedBatch(items, texts, SCALE, positives=positives))

    expected = (one_way(items, texts, positives) + one_way(texts, items, positives.T)) / 2
    assert math.isclose(found.item(), expected.item(), abs_tol=1e-5)


def test_a_threshold_consistent_margin_is_the_librarys_on_single_items() -> None:
    batch = single_items()

    found = make_loss("ThresholdConsistentMarginLoss", {"margin_plus": 0.8}, scope=Scope(alone=True))(batch)

    assert torch.allclose(found, ThresholdConsistentMarginLoss(margin_plus=0.8)(batch.images, CLASSES))


def test_a_threshold_consistent_margin_has_gradients_where_all_is_well() -> None:
    items = torch.eye(8)[[0, 1, 0, 2, 1, 0, 1, 3]].requires_grad_()

    found = make_loss("ThresholdConsistentMarginLoss", {}, scope=Scope(alone=True))(
        EmbeddedBatch(items, items.new_zeros(0, 8), SCALE, classes=CLASSES)
    )
    found.backward()  # type: ignore[no-untyped-call]

    assert found == 0
    assert items.grad is not None
    assert not items.grad.any()


@pytest.mark.parametrize("option", ["K", "l"])
def test_the_proxies_of_a_manifold_follow_from_the_data(option: str) -> None:
    loss = make_loss("ManifoldLoss", {}, scope=Scope(4, 8, alone=True))
    assert isinstance(loss, torch.nn.Module)

    assert [tuple(weights.shape) for weights in loss.parameters()] == [(4, 8)]
    with pytest.raises(Exception, match=f"no option {option!r}|{option}"):
        make_loss("ManifoldLoss", {option: 3}, scope=Scope(4, 8, alone=True))


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # the library's
def test_a_histogram_holds_items_that_are_the_same_and_those_that_are_opposite() -> None:
    items = torch.eye(8)[[0, 1, 0, 2, 1, 0, 1, 3]].requires_grad_()

    found = make_loss("HistogramLoss", {}, scope=Scope(alone=True))(
        EmbeddedBatch(torch.cat([items, -items]), items.new_zeros(0, 8), SCALE, classes=torch.cat([CLASSES, CLASSES]))
    )
    found.backward()  # type: ignore[no-untyped-call]

    assert found.isfinite()
    assert items.grad is not None
    assert items.grad.isfinite().all()
