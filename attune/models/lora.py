"""Low-rank adaptation: trains a small correction of each weight matrix, which the export merges into the weights."""

import math
from collections.abc import Collection
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attune.errors import SettingsError
from attune.kinds import Tower
from attune.models.layers import locate


class LowRank(nn.Module):
    """A weight plus ``scale * B @ A``, viewed in the weight's shape.

    Args:
        weight: (out, in), or a convolution's (out, in, height, width), taken as the matrix (out, in * height * width).
        rank: rows of `A`, columns of `B`.
        scale: factor of the product.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = _matrix_shape(weight)
        self.scale = scale
        # float32 whatever the weight is: steps of a small learning rate would vanish in half precision
        self.A = nn.Parameter(torch.empty(rank, columns, device=weight.device, dtype=torch.float32))
        self.B = nn.Parameter(torch.zeros(rows, rank, device=weight.device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The corrected weight."""
        # The sum is rounded once, by whoever uses it: under autocast the product would be rounded to bf16 here, but not
        # in the merged weights.
        with nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False):
            change: Tensor = self.scale * (self.B @ self.A)
            return weight + change.view_as(weight).to(weight.dtype)


def add_lora(model: nn.Module, rank: int, alpha: float | None = None, towers: Collection[Tower] = ("image", "text")) -> None:
    """Freezes the model and adds trainable low-rank corrections to the weight matrices of its blocks.

    LoRA (Hu et al. 2021, arXiv:2106.09685), for the matrices of attention and MLP in transformer blocks and the 1x1 and
    3x3 convolutions, depthwise ones excepted, in convolutional stages. Biases, norms, embeddings, stem and projections
    are frozen; `logit_scale` and `logit_bias` are left as they are. The corrections start at zero: the model's outputs
    are unchanged. They are computed as full matrices, so that any module can use them; that saves optimizer state and
    overfitting, not multiplications.

    A weight that is already frozen gets no correction: `choose_trainable` first, then this, adapts only the last blocks.
    Batch norms are frozen too; train with `attune.models.trainable.train_mode`.

    Args:
        model: an open_clip model. Draws from torch's random numbers.
        rank: 1 to the smaller side of the smallest matrix.
        alpha: the correction is scaled by ``alpha / rank``; default `rank`, a factor of 1.
        towers: the towers to adapt; the others are frozen.

    Raises:
        SettingsError: if the rank does not fit, or there is nothing to adapt. The model is then unchanged.
    """
    targets = _targets(model, towers)
    if not targets:
        raise SettingsError(
            f"LoRA finds no trainable weight matrix in the blocks of the towers {sorted(towers)}: they are locked, adapted "
            "already, or of an unknown architecture"
        )
    sides = {name: min(_matrix_shape(module.get_parameter(tensor))) for name, (module, tensor) in targets.items()}
    smallest = min(sides, key=lambda name: sides[name])
    if not 1 <= rank <= sides[smallest]:
        raise SettingsError(
            f"A LoRA rank of {rank} does not fit {smallest}, whose smaller side is {sides[smallest]}. "
            f"Choose from 1 to {sides[smallest]}"
        )

    for name, parameter in model.named_parameters():
        if name not in ("logit_scale", "logit_bias"):
            parameter.requires_grad_(False)
    scale = 1.0 if alpha is None else alpha / rank
    for module, tensor in targets.values():
        parametrize.register_parametrization(module, tensor, LowRank(module.get_parameter(tensor), rank, scale))


def merge_lora(model: nn.Module) -> None:
    """Adds the corrections to the weights, in place, and removes them: the model is plain again, its outputs the same.

    The parameters stay frozen.
    """
    for module, tensor in _adapted(model).values():
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state that the model would have after `merge_lora`; the model itself is unchanged.

    Merged weights are new tensors; all others, as in `state_dict`, share memory with the model. A model without
    corrections gives its `state_dict`.
    """
    state: dict[str, Tensor] = {}
    adapted = _adapted(model)
    for key, value in model.state_dict().items():
        name, middle, part = _split(key)
        if not middle or name not in adapted:
            state[key] = value
        elif part == "original":
            module, tensor = adapted[name]
            state[name] = getattr(module, tensor).detach()
    return state


def _targets(model: nn.Module, towers: Collection[Tower]) -> dict[str, tuple[nn.Module, str]]:
    """Parameter name -> module and its attribute, of the weight matrices to adapt."""
    places = locate(model)
    found = {}
    for name, module in model.named_modules():
        tensor = "in_proj_weight" if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter) else "weight"
        full = f"{name}.{tensor}"
        place = places.get(full)
        if place is None or place.tower not in towers or not 0 < place.depth < place.of:
            continue
        fits = tensor == "in_proj_weight" or isinstance(module, nn.Linear) or _is_plain_convolution(module)
        if fits and module.get_parameter(tensor).requires_grad:
            found[full] = (module, tensor)
    return found


def _adapted(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Parameter name in the plain model -> module and its attribute, of the weights that have a correction."""
    found = {}
    for name, module in model.named_modules():
        corrections = getattr(module, "parametrizations", {})
        for tensor, steps in corrections.items() if parametrize.is_parametrized(module) else ():
            if isinstance(steps[0], LowRank):
                found[f"{name}.{tensor}"] = (module, tensor)
    return found


def _split(key: str) -> tuple[str, str, str]:
    """``a.parametrizations.weight.original`` -> ``a.weight``, the middle, ``original``; any other key is itself."""
    before, middle, after = key.partition(".parametrizations.")
    tensor, _, part = after.partition(".")
    return (f"{before}.{tensor}" if middle else key, middle, part)


def _is_plain_convolution(module: nn.Module) -> bool:
    # A depthwise filter has 9 or so weights a channel: nothing that a low rank could save.
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size in ((1, 1), (3, 3))


def _matrix_shape(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight.numel() // weight.shape[0]
