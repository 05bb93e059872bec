"""The optimizer and its parameter groups."""

import inspect
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from attune.characters import shortened
from attune.choices import did_you_mean
from attune.errors import SettingsError
from attune.models.layers import layer_scales
from attune.optimizers import OPTIMIZERS
from attune.settings import FinetuningSettings
from attune.training.recipe import Recipe

SCALES = ("logit_scale", "logit_bias")
MOST = 1e9
"""Of an option's value: more is none that could train."""
FUSED = ("AdamW", "Adam", "SGD")
"""Those that torch can step in one go, on processors and GPUs alike."""
NOT_OPTIONS = {
    "lr": "learning_rate",
    "weight_decay": "weight_decay",
    **dict.fromkeys(("params", "maximize", "foreach", "fused", "capturable", "differentiable"), ""),
}
"""torch's arguments that are no options here, and the settings that stand for them, if any do."""


def check_options(name: str, options: dict[str, Any], setting: str = "optimizer_options") -> None:
    """Passes if an optimizer takes these options.

    Args:
        name: of the optimizer.
        options: by torch's names.
        setting: which they are, for messages.

    Raises:
        SettingsError: with the options there are, or with what torch says of their values.
    """
    known = inspect.signature(getattr(torch.optim, name)).parameters
    own = {option: parameter.default for option, parameter in known.items() if option not in NOT_OPTIONS}
    for option in options:
        if option not in own:
            instead = f". It is a setting of its own, {NOT_OPTIONS[option]}" if NOT_OPTIONS.get(option) else ""
            instead = instead or did_you_mean(option, own)
            there = ", ".join(f"{name} = {default}" for name, default in own.items()) or "none"
            raise SettingsError(f"{setting}: {name} takes no {option!r} here{instead}. Its options are: {there}")
        if not _alike(options[option], own[option]):
            raise SettingsError(
                f"{setting}.{option} = {shortened(repr(options[option]))} cannot be used with {name}: give a value such as "
                f"its default, {own[option]}"
            )
    weights = nn.Parameter(torch.zeros(2, 2))
    weights.grad = torch.ones(2, 2)
    try:
        _of_torch(name, [{"params": [weights]}], 1e-3, options).step()
    except Exception as error:  # what torch does not check itself
        raise SettingsError(f"{setting} = {options} cannot be used with {name}: {error or type(error).__name__}") from None


def _alike(value: Any, default: Any) -> bool:
    """Whether a value, as JSON has it, is of a default's type and length: true or false, a finite number, a list of them."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and len(value) == len(default) and all(map(_alike, value, default))
    if value is None or isinstance(default, bool):
        return type(value) is type(default)
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST <= value <= MOST


def make_optimizer(model: nn.Module, recipe: Recipe, options: dict[str, Any]) -> torch.optim.Optimizer:
    """The recipe's optimizer, with a learning rate for each layer.

    Weight decay is not for norms, biases, logit_scale and other vectors. The lower a layer, the more general what it
    knows, and the smaller its steps (layer-wise learning-rate decay; FT-CLIP, arXiv:2212.06138).

    Args:
        model: whose weights are trained.
        recipe: of the run.
        options: of the optimizer, where they are not to be the default ones.

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
    has_decay = OPTIMIZERS[recipe.optimizer].weight_decay is not None
    return _of_torch(
        recipe.optimizer,
        [
            {"params": parameters, "rate": rate, **({"weight_decay": recipe.weight_decay * decays} if has_decay else {})}
            for (rate, decays), parameters in groups.items()
        ],
        recipe.learning_rate,
        options,
    )


def make_loss_optimizer(criterion: object, settings: FinetuningSettings) -> torch.optim.Optimizer | None:
    """An optimizer of the weights that the loss has of its own; None if it has none."""
    weights = list(criterion.parameters()) if isinstance(criterion, nn.Module) else []
    if not weights:
        return None
    group = {"params": weights, "rate": 1.0}
    return _of_torch(settings.loss_optimizer, [group], settings.loss_learning_rate, settings.loss_optimizer_options)


def _of_torch(name: str, groups: list[dict[str, Any]], rate: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    kind: type[torch.optim.Optimizer] = getattr(torch.optim, name)
    given = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    fused = {"fused": True} if name in FUSED else {}
    return kind(groups, lr=rate, **{**OPTIMIZERS[name].options, **given, **fused})  # type: ignore[call-arg]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Gives each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
