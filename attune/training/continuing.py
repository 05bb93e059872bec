"""Going on from an earlier run: with its model, and with its optimizer's state as well where that is asked for.

A finished training leaves `checkpoints/optimizer.safetensors`: of each weight it trained what the optimizer keeps, such as
Adam's two moments and the number of steps, as `KIND.WEIGHT`. They are those after its last step, whichever weights were
chosen in the end.
"""

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from attune.errors import SettingsError
from attune.files import whole_file
from attune.runs.folder import RunFolder
from attune.runs.models import ancestors
from attune.service.settings import service_settings
from attune.settings import FinetuningSettings
from attune.training.checkpoints import Checkpoints

STEP = "step"


def origin(settings: FinetuningSettings) -> RunFolder | None:
    """The finished run whose model a run begins with; None if it begins with another model.

    Raises:
        SettingsError: if the settings ask for a run, or its optimizer's state, and there is none.
    """
    folder = next(iter(ancestors(settings.model)), None)
    if folder is None and (settings.model_artifact or settings.continue_optimizer):
        asked = "model_artifact" if settings.model_artifact else "continue_optimizer"
        raise SettingsError(
            f"{asked}: the model {settings.model!r} is not that of a finished run. Give model_artifact the name of a run, "
            f"or leave {asked} out"
        )
    if folder is not None and settings.continue_optimizer and not Checkpoints(folder).optimizer.is_file():
        raise SettingsError(
            f"continue_optimizer: the run {folder.reference!r} has no optimizer state. It is removed "
            f"{service_settings().keep_checkpoints_days:g} days after a run's end (ATTUNE_KEEP_CHECKPOINTS_DAYS), and a run "
            "with lora_rank leaves none. Set continue_optimizer to false to go on with the model alone"
        )
    return folder


def save_optimizer(folder: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the optimizer's state of the weights that are trained, for runs that go on from this one."""
    trained = _trained(model)
    tensors = {
        f"{key}.{name}": value.detach().float().cpu().contiguous()
        for name, parameter in trained.items()
        for key, value in optimizer.state.get(parameter, {}).items()  # nothing of a weight that never had a gradient
        if isinstance(value, torch.Tensor)
    }
    shapes = {name: list(parameter.shape) for name, parameter in trained.items()}
    with whole_file(Checkpoints(folder).optimizer) as draft:
        save_file(tensors, draft, {"optimizer": type(optimizer).__name__, "shapes": json.dumps(shapes)})
        draft.chmod(0o644)


def check_continues(folder: RunFolder, model: nn.Module, optimizer: str) -> None:
    """Passes if the optimizer's state that a finished run left is one of these weights.

    Args:
        folder: of that run.
        model: whose weights are going to be trained; nothing but their shapes is looked at.
        optimizer: name of the optimizer.

    Raises:
        SettingsError: if that run trained other weights, or with another optimizer.
    """
    with safe_open(Checkpoints(folder).optimizer, "pt") as file:
        facts = file.metadata()
    if facts["optimizer"] != optimizer:
        raise SettingsError(
            f"continue_optimizer: the run {folder.reference!r} was trained with {facts['optimizer']}, and this one is to be "
            f"with {optimizer}. Set optimizer to {facts['optimizer']}, or continue_optimizer to false"
        )
    shapes = json.loads(facts["shapes"])
    own = {name: list(parameter.shape) for name, parameter in _trained(model).items()}
    if unlike := sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name)):
        raise SettingsError(
            f"continue_optimizer: the run {folder.reference!r} trained other weights than this one does: {len(unlike)} "
            f"differ, the first is {unlike[0]}. Leave the model's shape as it is (model_options) and train the same towers "
            "and blocks as it did (lock_image, lock_text, train_last_blocks), or set continue_optimizer to false"
        )


def load_optimizer(folder: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts the optimizer in the state that a finished run left.

    Args:
        folder: of that run.
        model: whose weights are going to be trained.
        optimizer: of these weights.

    Returns:
        The most steps that any weight has behind it; 0 if the optimizer does not count them.

    Raises:
        SettingsError: if that run trained other weights, or with another optimizer.
    """
    trained = _trained(model)
    check_continues(folder, model, type(optimizer).__name__)
    with safe_open(Checkpoints(folder).optimizer, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    for entry, tensor in tensors.items():
        key, _, name = entry.partition(".")
        if tensor.shape == trained[name].shape:  # in the order of memory that the weight has
            tensor = torch.empty_like(trained[name]).copy_(tensor)
        optimizer.state[trained[name]][key] = tensor
    optimizer.load_state_dict(optimizer.state_dict())  # puts each part where torch wants it
    return max((int(tensor.item()) for entry, tensor in tensors.items() if entry.startswith(f"{STEP}.")), default=0)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
