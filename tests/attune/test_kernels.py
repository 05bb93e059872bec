"""Kernels in the place of torch's on processors."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attune.training.kernels import replace_kernels


def gradients(of: Tensor, *inputs: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(of.shape, generator=generator).to(of.dtype)
    return list(torch.autograd.grad((of * weights).sum(), inputs))


@pytest.mark.parametrize("mask", ["none", "causal", "float", "bool"])
def test_attention_under_autocast_is_that_of_float32_rounded_at_the_end(mask: str) -> None:
    replace_kernels()
    torch.manual_seed(0)
    inputs = [torch.randn(3, 2, 12, 16).bfloat16().requires_grad_() for _ in range(3)]
    floats = [value.detach().float().requires_grad_() for value in inputs]
    hidden = torch.ones(12, 12, dtype=torch.bool).triu(1)
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "float": {"attn_mask": torch.zeros(12, 12).masked_fill(hidden, -torch.inf)},
        "bool": {"attn_mask": ~hidden},
    }[mask]

    with torch.autocast("cpu", torch.bfloat16):
        found = F.scaled_dot_product_attention(*inputs, **options)
    expected = F.scaled_dot_product_attention(*floats, **options)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    for mine, other in zip(gradients(found, *inputs), gradients(expected, *floats), strict=True):
        torch.testing.assert_close(mine.float(), other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("size", "kernel", "options", "cuts_patches"),
    [
        ((2, 3, 24, 32), (8, 8), {"stride": 8}, True),
        ((2, 3, 24, 32), (8, 16), {"stride": (8, 16)}, True),
        ((2, 3, 25, 32), (8, 8), {"stride": 8}, False),  # the last row of pixels is left out
        ((2, 3, 24, 32), (3, 3), {"padding": 1}, False),
        ((2, 3, 24, 32), (2, 2), {"stride": 2, "padding": 1}, False),
        ((2, 3, 24, 32), (2, 2), {"stride": 2, "dilation": 2}, False),
        ((2, 3, 24, 32), (2, 2), {"stride": 2, "groups": 3}, False),
        ((2, 3, 24, 32), (1, 1), {}, False),
        ((3, 24, 32), (8, 8), {"stride": 8}, False),  # a single picture
    ],
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_convolution_under_autocast_gives_the_same(
    size: tuple[int, ...], kernel: tuple[int, int], options: dict[str, object], cuts_patches: bool, has_bias: bool
) -> None:
    replace_kernels()
    torch.manual_seed(0)
    pictures = torch.randn(size).bfloat16().float().requires_grad_()
    layer = torch.nn.Conv2d(3, 6, kernel, bias=has_bias, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.bfloat16())

    with torch.autocast("cpu", torch.bfloat16):
        found = layer(pictures)
    expected = layer(pictures)

    assert found.dtype == torch.bfloat16
    assert (type(found.grad_fn).__name__ == "PermuteBackward0") == cuts_patches
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)
    inputs = [pictures, *layer.parameters()]
    for mine, other in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.5)  # sums of 1,500 products
