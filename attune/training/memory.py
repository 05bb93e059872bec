"""Steps that do not fit into memory are taken in smaller pieces."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from attune.allocator import give_back_memory
from attune.errors import TrainingError

T = TypeVar("T")

ALLOCATOR_MESSAGES = (
    "DefaultCPUAllocator",  # main memory
    "CUBLAS_STATUS_ALLOC_FAILED",  # libraries that allocate for themselves say it in their own words
    "CUDNN_STATUS_ALLOC_FAILED",
)


class SmallerPieces(Exception):
    """All processes of a run are to try again in smaller pieces: memory ran out in one. No user sees this.

    Attributes:
        size: pairs at a time to try next, at least 1.
    """

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


def with_enough_memory(
    run_step: Callable[[int | None], T],
    micro_batch_size: int | None,
    batch_size: int,
    log: Callable[..., None],
    clear: Callable[[], None],
) -> tuple[T, int | None]:
    """Runs a step, in ever smaller pieces until they fit into memory.

    Half the pieces each time: from the batch to `batch_size // 2`, and on down to 1. A system that promises more main
    memory than it has ends the process instead of refusing; then there is nothing to catch here.

    Args:
        run_step: forward and backward pass of one batch in pieces of so many pairs, `None` for all at once; returns
            what it likes. It must not touch the weights, so that it can be run again: no optimizer step.
        micro_batch_size: pairs a piece to begin with.
        batch_size: pairs of this batch.
        log: takes a line, with ``kind="memory"``, when pieces become smaller.
        clear: drops all gradients, such as `optimizer.zero_grad`. Called before every attempt: pieces that did fit have
            left theirs.

    Returns:
        What `run_step` returned, and the size that it settled on: `micro_batch_size` if that was fine. Go on with it, and
        keep it with the run.

    Raises:
        TrainingError: if one pair at a time does not fit either.
    """
    while True:
        clear()
        try:
            return run_step(micro_batch_size), micro_batch_size
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
            shortage = str(error).strip().split("\n")[0] or type(error).__name__
        # Outside of the handler: inside, the traceback would keep the step's tensors alive.
        clear()
        free_caches()
        smaller = min(micro_batch_size or batch_size, batch_size) // 2
        if smaller < 1:
            raise TrainingError(
                f"Not even one pair at a time fits into memory: {shortage}. Close what else uses the memory, choose a "
                "smaller model, or a machine with more of it"
            )
        log(f"the batch does not fit into memory: {smaller} pairs at a time from here on", kind="memory", pairs=smaller)
        micro_batch_size = smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the main memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in ALLOCATOR_MESSAGES)


def free_bytes(device: torch.device, control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that is free on a GPU; of the main memory, what is free or can be had by dropping cached files.

    Where the system does not say (macOS), half of all there is. In a container, no more than what its limit leaves.

    Args:
        device: whose memory.
        control_group: folder with this process's limits (version 2 of Linux's control groups).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_free_in_system(), _free_in_container(control_group))


def _free_in_system() -> int:
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        figures = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(figures["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return everything // 2


def _free_in_container(folder: Path) -> int:
    """What the limit leaves, with what cached files take; more than any machine has where there is no limit."""
    try:
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(figures["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no such files, or the word "max"
        return sys.maxsize


def free_caches() -> None:
    """Gives back memory that nothing uses any more."""
    gc.collect()
    give_back_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
