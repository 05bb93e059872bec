import math

import pytest
import torch
from open_clip.loss import ClipLoss

from attune.config import LOSSES as NAMES
from attune.losses import LOSSES, clip_loss


def embeddings(batch: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.nn.functional.normalize(torch.randn(batch, dim, generator=generator), dim=-1) for _ in "it")
    return images, texts


def test_every_loss_that_settings_accept_exists() -> None:
    assert set(LOSSES) == set(NAMES)


@pytest.mark.parametrize("batch", [2, 5, 16])
@pytest.mark.parametrize("dim", [3, 32])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_equals_open_clips_loss(batch: int, dim: int, scale: float) -> None:
    images, texts = embeddings(batch, dim, seed=batch * dim)

    expected = ClipLoss()(images, texts, torch.tensor(scale))

    torch.testing.assert_close(clip_loss(images, texts, torch.tensor(scale)), expected)


def test_equals_a_hand_computed_value() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])

    loss = clip_loss(images, texts, torch.tensor(2.0))

    # logits = 2 x images @ texts.T = [[2, 1.2], [0, 1.6]]
    # image to text, by rows:    -2 + ln(e^2 + e^1.2), -1.6 + ln(e^0 + e^1.6)
    # text to image, by columns: -2 + ln(e^2 + e^0),   -1.6 + ln(e^1.2 + e^1.6)
    e = math.exp
    rows = -2 + math.log(e(2) + e(1.2)) - 1.6 + math.log(e(0) + e(1.6))
    columns = -2 + math.log(e(2) + e(0)) - 1.6 + math.log(e(1.2) + e(1.6))
    assert loss.item() == pytest.approx((rows / 2 + columns / 2) / 2, abs=1e-6)


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_is_the_logarithm_of_the_batch_if_nothing_is_told_apart(batch: int) -> None:
    same = torch.nn.functional.normalize(torch.ones(batch, 8), dim=-1)

    assert clip_loss(same, same, torch.tensor(50.0)).item() == pytest.approx(math.log(batch), abs=1e-5)


def test_does_not_care_which_tower_is_which_nor_in_which_order_pairs_come() -> None:
    images, texts = embeddings(9, 4, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    scale = torch.tensor(10.0)

    loss = clip_loss(images, texts, scale)

    torch.testing.assert_close(clip_loss(texts, images, scale), loss)
    torch.testing.assert_close(clip_loss(images[order], texts[order], scale), loss)


def test_computes_in_float32_whatever_comes_in() -> None:
    images, texts = embeddings(8, 16, seed=3)
    half = images.bfloat16(), texts.bfloat16()

    loss = clip_loss(*half, torch.tensor(100.0, dtype=torch.bfloat16))

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, clip_loss(half[0].float(), half[1].float(), torch.tensor(100.0)))
