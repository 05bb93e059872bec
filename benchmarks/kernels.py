"""Attune's kernels for processors beside torch's own, forward and backward, in bfloat16.

They take turns in one process, on tensors of the sizes that training a CLIP gives them; see `attune.training.kernels`. Where
a ratio is no longer above 1, torch has caught up, and the kernel can go.

    python -m benchmarks.kernels
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attune.training.kernels import attention, convolution
from benchmarks.machine import RESULTS, command_line, describe_machine, write_result

ATTENTION = {
    "12 tokens, 40 texts": (40, 8, 12, True),
    "24 tokens, 40 texts": (40, 8, 24, True),
    "77 tokens, 40 texts": (40, 8, 77, True),
    "50 patches, 64 pictures": (64, 12, 50, False),
    "197 patches, 32 pictures": (32, 12, 197, False),
}
"""Rows, heads of 64 numbers, places, and whether they look back only."""
CONVOLUTION = {"patches of 32, 64 pictures": (64, 32), "patches of 16, 32 pictures": (32, 16)}
"""Pictures of 224 x 224, and the patch's edge; 768 numbers a patch."""

Step = Callable[[], Tensor]


def main(arguments: list[str]) -> dict[str, Any]:
    """Measures every case, writes the result, and returns it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="turns of each kernel")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder the result is written to")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    torch.manual_seed(0)
    cases = {f"attention, {name}": compare(*_attention(*size), options.repeats) for name, size in ATTENTION.items()} | {
        f"convolution, {name}": compare(*_convolution(*size), options.repeats) for name, size in CONVOLUTION.items()
    }
    for name, found in cases.items():
        print(f"{name}: {found['attune_ms']} ms, torch {found['torch_ms']} ms, ratio {found['ratio']}", flush=True)
    result = {
        "benchmark": "kernels",
        "command": command_line("kernels", arguments),
        "machine": machine,
        "precision": "bf16",
        "cases": cases,
    }
    write_result(options.results / "kernels.json", result)
    return result


def compare(mine: Step, theirs: Step, repeats: int) -> dict[str, float]:
    """Milliseconds of both, forward and backward, and torch's divided by Attune's: medians over turns."""
    seconds: dict[Step, list[float]] = {mine: [], theirs: []}
    for turn in range(repeats + 2):  # the first two are to warm up
        for step, found in seconds.items():
            began = time.perf_counter()
            step().float().sum().backward()  # type: ignore[no-untyped-call]
            if turn >= 2:
                found.append(time.perf_counter() - began)
    own, others = (1000 * median(found) for found in seconds.values())
    return {"attune_ms": round(own, 2), "torch_ms": round(others, 2), "ratio": round(others / own, 2)}


def _attention(rows: int, heads: int, places: int, is_causal: bool) -> tuple[Step, Step]:
    inputs = [torch.randn(rows, places, heads, 64).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)]
    mask = torch.full((places, places), -torch.inf, dtype=torch.bfloat16).triu(1) if is_causal else None

    def mine() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return attention(*inputs, mask)

    return mine, lambda: F.scaled_dot_product_attention(*inputs, mask)


def _convolution(pictures: int, edge: int) -> tuple[Step, Step]:
    given = torch.randn(pictures, 3, 224, 224).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(768, 3, edge, edge).bfloat16().requires_grad_()

    def mine() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return convolution(given, weight, stride=(edge, edge))

    return mine, lambda: F.conv2d(given, weight, stride=edge)


if __name__ == "__main__":
    main(sys.argv[1:])
