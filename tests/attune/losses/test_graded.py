import math

import pytest
import torch
from torch import nn

from attune.losses.batch import EmbeddedBatch
from attune.losses.graded import cosent_loss, cosine_similarity_loss, margin_mse_loss
from attune.losses.make import make_loss
from attune.losses.table import LOSSES

SCALE = torch.tensor(10.0)
NAN = math.nan


def on_a_circle(*degrees: float) -> torch.Tensor:
    """Unit vectors (angles, 2): the cosine of two is that of the angle between them."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


IMAGES, TEXTS = on_a_circle(0, 90), on_a_circle(60, 0, 150)
SCORES = torch.tensor([[0.8, 0.2, NAN], [NAN, NAN, 0.5]])
"""Of three pairs, whose cosines are 0.5, 1 and 0.5."""


def test_cosines_are_to_be_the_scores() -> None:
    found = cosine_similarity_loss(EmbeddedBatch(IMAGES, TEXTS, SCALE, scores=SCORES))

    assert found.item() == pytest.approx((0.3**2 + 0.8**2 + 0) / 3, abs=1e-6)


def test_a_higher_score_is_to_be_nearer() -> None:
    found = cosent_loss(EmbeddedBatch(IMAGES, TEXTS, SCALE, scores=SCORES), scale=2.0)

    # Scores 0.2 < 0.5 < 0.8 of cosines 1, 0.5 and 0.5: by 2 * 0.5, 2 * 0.5 and 2 * 0 too near.
    assert found.item() == pytest.approx(math.log(1 + math.exp(1) + math.exp(1) + 1), rel=1e-6)


def test_only_the_order_of_scores_counts_and_equal_ones_say_nothing() -> None:
    found = cosent_loss(EmbeddedBatch(IMAGES, TEXTS, SCALE, scores=SCORES))
    same = cosent_loss(EmbeddedBatch(IMAGES, TEXTS, SCALE, scores=torch.where(SCORES.isnan(), NAN, 1.0)))

    assert cosent_loss(EmbeddedBatch(IMAGES, TEXTS, SCALE, scores=100 * SCORES**3)).item() == found.item()
    assert same.item() == 0


def test_margins_are_to_be_the_teachers() -> None:
    """Two captions and a negative of one query, one of each of another; cosines 1, 0.5 and 0; 0.5 and -1."""
    queries, texts = on_a_circle(0, 180), on_a_circle(0, 60, 90, 120, 0)
    positives = torch.tensor([[True, True, False, False, False], [False, False, False, True, False]])
    scores = torch.tensor([[0, 0, -0.7, NAN, NAN], [NAN, NAN, NAN, 0, -1.0]])

    found = margin_mse_loss(EmbeddedBatch(queries, texts, SCALE, None, positives, scores=scores))
    doubled = margin_mse_loss(EmbeddedBatch(queries, texts, SCALE, None, positives, scores=2 * scores), scale=2.0)

    assert found.item() == pytest.approx(((1 - 0.7) ** 2 + (0.5 - 0.7) ** 2 + (1.5 - 1) ** 2) / 3, rel=1e-5)
    assert doubled.item() == pytest.approx(4 * found.item(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.data == "score"])
@pytest.mark.parametrize("captions", [1, 3])
def test_every_loss_over_scores_brings_pairs_into_their_order(name: str, captions: int) -> None:
    torch.manual_seed(0)
    pictures, texts = (torch.randn(n, 8, requires_grad=True) for n in (8, 8 * captions))
    own = torch.arange(8).repeat_interleave(captions) == torch.arange(8)[:, None]
    scores = torch.where(own, torch.rand(own.shape), NAN)
    loss = make_loss(name, {})
    optimizer = torch.optim.Adam([pictures, texts], 0.02)

    for _ in range(200):
        optimizer.zero_grad()
        found = loss(
            EmbeddedBatch(
                *(nn.functional.normalize(each, dim=-1) for each in (pictures, texts)), SCALE, None, own, scores=scores
            )
        )
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert found.isfinite()

    similar = nn.functional.normalize(pictures, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    assert torch.corrcoef(torch.stack([similar[own], scores[own]]).argsort().argsort().float())[0, 1] > 0.95


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.data])
def test_scores_are_missed_where_there_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="takes p"):
        make_loss(name, {})(EmbeddedBatch(IMAGES, IMAGES, SCALE))
