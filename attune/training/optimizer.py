"""The optimizer and its parameter groups."""

from collections import defaultdict

import torch
from torch import nn

from attune.models.layers import layer_scales
from attune.training.recipe import Recipe

SCALES = ("logit_scale", "logit_bias")


def make_optimizer(model: nn.Module, recipe: Recipe, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with CLIP's betas and eps, and a learning rate for each layer.

    Weight decay is not for norms, biases, logit_scale and other vectors. An eps of 1e-6 instead of 1e-8 keeps steps
    small where gradients are tiny (open_clip's default for ViT models). The lower a layer, the more general what it
    knows, and the smaller its steps (layer-wise learning-rate decay; FT-CLIP, arXiv:2212.06138).

    Returns:
        An optimizer whose groups carry `rate`: their share of the learning rate at any step.
    """
    rates = layer_scales(model, recipe.layer_wise_lr_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.logit_scale_rate if name in SCALES else rates[name]
        groups[rate, parameter.ndim >= 2].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "rate": rate, "weight_decay": weight_decay if decays else 0.0}
            for (rate, decays), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Gives each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
