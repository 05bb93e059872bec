"""Random changes to pictures."""

import pytest
import torch

from attune.data.augment import DRAWS, ROWS, STRENGTHS, augment, mirror


def checkerboard(count: int = 8) -> torch.Tensor:
    """Pictures with strong edges: uint8 (count, 3, 32, 32)."""
    square = (torch.arange(32)[:, None] // 8 + torch.arange(32) // 8) % 2
    return (square * 255).to(torch.uint8).expand(count, 3, 32, 32).contiguous()


def draws(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("strength", STRENGTHS)
def test_draws_of_nothing_change_nothing(strength: str) -> None:
    pixels = torch.arange(0, 192, dtype=torch.uint8).view(1, 3, 8, 8)
    assert torch.equal(augment(pixels, strength, torch.zeros(1, DRAWS)), pixels)


@pytest.mark.parametrize("number", range(DRAWS))
def test_each_draw_changes_something_and_its_opposite_something_else(number: int) -> None:
    pixels = torch.randint(0, 200, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    there, back = torch.zeros(2, 1, DRAWS)
    there[0, number], back[0, number] = 1, -1
    found = [augment(pixels, "strong", one) for one in (there, back)]
    assert not torch.equal(found[0], pixels)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_every_picture_changes_in_its_own_way(strength: str) -> None:
    images = augment(checkerboard(), strength, draws(8))
    assert (images.shape, images.dtype) == ((8, 3, 32, 32), torch.uint8)
    assert all(not torch.equal(images[0], other) for other in images[1:])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_picture_changes_as_drawn_whichever_others_are_with_it(strength: str) -> None:
    pixels, drawn = checkerboard(2 * ROWS + 1), draws(2 * ROWS + 1)
    whole = augment(pixels, strength, drawn)
    parts = [augment(pixels[at : at + 10], strength, drawn[at : at + 10]) for at in range(0, len(pixels), 10)]
    assert (whole.int() - torch.cat(parts).int()).abs().max() <= 1  # sums of another order may round otherwise


def test_strong_changes_more_than_light() -> None:
    pixels = checkerboard(64)
    changes = [(augment(pixels, name, draws(64)) / 255 - pixels / 255).abs().mean() for name in ("light", "strong")]
    assert changes[0] < changes[1]


def test_grey_pictures_stay_grey() -> None:
    # Saturation and hue turn around the grey axis, so equal channels stay equal.
    images = augment(checkerboard(), "strong", draws(8)).int()
    assert (images[:, 0] - images[:, 1]).abs().max() <= 1


def test_those_that_are_chosen_are_mirrored() -> None:
    pixels = torch.arange(2 * 3 * 2 * 3, dtype=torch.uint8).view(2, 3, 2, 3)

    found = mirror(pixels, torch.tensor([False, True]))

    assert torch.equal(found[0], pixels[0])
    assert found[1, 0].tolist() == [[20, 19, 18], [23, 22, 21]]
    assert found.dtype == torch.uint8
