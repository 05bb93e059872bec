"""Pools over a text's tokens: against a loop over them, and blind to what fills up."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from attune.models.pooling import POOLERS
from attune.settings import ModelOptions

TEXTS, LENGTH, WIDTH = 5, 7, 3
LENGTHS = (1, 3, 7, 2, 5)

SLOW: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda tokens: sum(tokens) / len(tokens),  # type: ignore[arg-type, return-value]
    "max": lambda tokens: torch.stack([max(values) for values in tokens.T]),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "gem": lambda tokens: torch.stack(
        [(sum(max(value, torch.tensor(1e-6)) ** 3 for value in values) / len(values)) ** (1 / 3) for values in tokens.T]
    ),
}


def made() -> tuple[Tensor, Tensor]:
    tokens = torch.randn(TEXTS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
    return tokens, torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]


def test_the_setting_names_every_pool() -> None:
    [kinds, _] = get_args(ModelOptions.model_fields["pooler"].annotation)
    assert set(get_args(kinds)) == set(POOLERS) == set(SLOW)


@pytest.mark.parametrize("name", POOLERS)
def test_a_pool_is_what_a_loop_over_the_tokens_gives(name: str) -> None:
    tokens, mask = made()

    found = POOLERS[name](tokens, mask)

    expected = torch.stack([SLOW[name](own[:length]) for own, length in zip(tokens, LENGTHS, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", POOLERS)
@pytest.mark.parametrize("filler", [1e30, torch.inf, torch.nan])
def test_what_fills_up_has_no_part_in_the_embedding_nor_in_a_gradient(name: str, filler: float) -> None:
    tokens, mask = made()
    expected = POOLERS[name](tokens, mask)
    tokens[~mask] = filler
    tokens.requires_grad_()

    found = POOLERS[name](tokens, mask)
    found.sum().backward()

    assert torch.equal(found, expected)
    assert tokens.grad is not None
    assert torch.equal(tokens.grad[~mask], torch.zeros_like(tokens.grad[~mask]))
    assert tokens.grad[mask].isfinite().all()


def test_gem_of_values_below_zero_is_a_number_with_a_gradient() -> None:
    tokens, mask = -torch.rand(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)

    found = POOLERS["gem"](tokens.requires_grad_(), mask)
    found.sum().backward()

    torch.testing.assert_close(found, torch.full((2, 4), 1e-6))
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
