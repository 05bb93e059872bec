"""Kernels that stand in for two of torch's whose backward is slow on a processor in bfloat16.

`benchmarks.kernels` says how slow; where torch has caught up, they can go.
"""

import warnings
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def replace_kernels() -> torch.library.Library:
    """From now on autocast on this process's processor uses `attention` and `convolution`; more calls change nothing.

    Returns:
        What holds them: without it, here kept by the cache, they would go.
    """
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that torch's own is replaced is meant
        library.impl("scaled_dot_product_attention", attention, "AutocastCPU")  # type: ignore[no-untyped-call]
        library.impl("conv2d", convolution, "AutocastCPU")  # type: ignore[no-untyped-call]
    return library


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` in float32, its result in autocast's precision."""
    precision = torch.get_autocast_dtype("cpu")
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):
        found = F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask,
            dropout_p,
            is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
    return found.to(precision)


def convolution(
    pictures: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d` in autocast's precision, as a product of matrices where it cuts pictures into patches.

    A vision transformer's first layer does.
    """
    precision = torch.get_autocast_dtype("cpu")
    pictures, weight = pictures.to(precision), weight.to(precision)
    bias = None if bias is None else bias.to(precision)
    with torch.autocast("cpu", enabled=False):
        if _cuts_patches(pictures, weight, stride, padding, dilation, groups):
            height, width = stride
            count, colours, rows, columns = pictures.shape
            patches = pictures.reshape(count, colours, rows // height, height, columns // width, width)
            return F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3), weight.flatten(1), bias).permute(0, 3, 1, 2)
        return F.conv2d(pictures, weight, bias, stride, padding, dilation, groups)


def _cuts_patches(
    pictures: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether each pixel is seen once, by a kernel of more than one."""
    size = list(weight.shape[2:])
    return (
        pictures.ndim == 4
        and list(stride) == size != [1, 1]
        and list(dilation) == [1, 1]
        and not any(padding)
        and groups == 1
        and pictures.shape[2] % size[0] == pictures.shape[3] % size[1] == 0
    )
