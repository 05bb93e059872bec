"""Which device and which arithmetic a run uses."""

import os

import torch

from attune.errors import SettingsError
from attune.settings import gpu_numbers


def choose_device(wanted: str, rank: int = 0) -> str:
    """The device of one process of a run.

    Args:
        wanted: `auto`, `cpu`, `cuda`, or GPUs by number as in `cuda:0,1`.
        rank: which of the run's processes; each takes the next GPU that is named, or with `auto` that is there.

    Returns:
        `cpu` or `cuda:N`; `auto` is a GPU where there is one.

    Raises:
        SettingsError: if a GPU is asked for that is not there.
    """
    if wanted == "auto":
        return f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    gpus = gpu_numbers(wanted)
    if not gpus:
        return "cpu"
    missing = [gpu for gpu in gpus if gpu >= torch.cuda.device_count()]
    if missing:
        raise SettingsError(
            f"devices = {wanted!r}: this machine has {torch.cuda.device_count()} GPUs that torch can use. "
            "Use devices auto or cpu"
        )
    return f"cuda:{gpus[rank % len(gpus)]}"


def check_processes(processes: int, wanted: str) -> None:
    """Raises if a run's processes have no device each: a GPU, or a core where it works on the processor.

    Each holds a model of its own, so that far too many take all the memory there is.

    Args:
        processes: how many share each batch.
        wanted: devices, as of `choose_device`.

    Raises:
        SettingsError: if there are fewer devices than processes, or a GPU is asked for that is not there.
    """
    on_gpus = choose_device(wanted) != "cpu"
    there = len(gpu_numbers(wanted)) or (torch.cuda.device_count() if on_gpus else os.cpu_count() or 1)
    if processes > there:
        what = "GPUs" if on_gpus else "cores"
        raise SettingsError(
            f"processes = {processes} is more than the {there} {what} that devices = {wanted!r} comes to on this machine. "
            f"Lower it to {there} or less"
        )


def devices_of(wanted: str) -> tuple[str, ...]:
    """The devices on which a run with this setting works, without asking whether those that it names are there."""
    return tuple(f"cuda:{gpu}" for gpu in gpu_numbers(wanted)) or (choose_device("auto" if wanted == "auto" else "cpu"),)


def choose_precision(wanted: str, device: str) -> str:
    """`auto` becomes `bf16` on a GPU or processor that computes in it, else `fp32`; anything else is kept."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "fp32"
