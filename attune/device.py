"""Which device and which arithmetic a run uses."""

import torch

from attune.errors import SettingsError


def choose_device(wanted: str) -> str:
    """`auto` becomes `cuda` where there is a GPU, else `cpu`; anything else is checked and kept.

    Raises:
        SettingsError: if a GPU is asked for that is not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise SettingsError(
                f"device = {wanted!r}: this machine has {torch.cuda.device_count()} GPUs that torch can use. "
                "Use device auto or cpu"
            )
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """`auto` becomes `bf16` on a GPU or processor that computes in it, else `fp32`; anything else is kept."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "fp32"
