"""Random changes to pictures."""

import pytest
import torch

from attune.data.augment import STRENGTHS, augment, mirror


def checkerboard(count: int = 8) -> torch.Tensor:
    """Pictures with strong edges: uint8 (count, 3, 32, 32)."""
    square = (torch.arange(32)[:, None] // 8 + torch.arange(32) // 8) % 2
    return (square * 255).to(torch.uint8).expand(count, 3, 32, 32).contiguous()


def test_none_only_scales() -> None:
    pixels = checkerboard()
    assert torch.equal(augment(pixels, "none"), pixels.float() / 255)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_result_has_the_same_shape_and_range(strength: str) -> None:
    images = augment(checkerboard(), strength)
    assert images.shape == (8, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("strength", STRENGTHS)
def test_every_picture_changes_in_its_own_way(strength: str) -> None:
    images = augment(checkerboard(), strength)
    assert all(not torch.equal(images[0], other) for other in images[1:])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_seed_decides(strength: str) -> None:
    torch.manual_seed(3)
    first = augment(checkerboard(), strength)
    torch.manual_seed(3)
    assert torch.equal(first, augment(checkerboard(), strength))


def test_strong_changes_more_than_light() -> None:
    pixels = checkerboard(64)
    torch.manual_seed(0)
    changes = [(augment(pixels, name) - pixels / 255).abs().mean() for name in ("light", "strong")]
    assert changes[0] < changes[1]


def test_grey_pictures_stay_grey() -> None:
    # Saturation and hue turn around the grey axis, so equal channels stay equal.
    images = augment(checkerboard(), "strong")
    assert torch.allclose(images[:, 0], images[:, 1], atol=2e-3)


def test_those_that_are_chosen_are_mirrored() -> None:
    pixels = torch.arange(2 * 3 * 2 * 3, dtype=torch.uint8).view(2, 3, 2, 3)

    found = mirror(pixels, torch.tensor([False, True]))

    assert torch.equal(found[0], pixels[0])
    assert found[1, 0].tolist() == [[20, 19, 18], [23, 22, 21]]
    assert found.dtype == torch.uint8
