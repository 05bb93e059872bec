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
    """`auto` becomes `bf16` on a GPU that computes in it, else `fp32`; anything else is kept."""
    if wanted == "auto":
        return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    return wanted
