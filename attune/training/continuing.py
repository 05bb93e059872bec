"""Going on from an earlier run: with its model, and with its optimizer's state as well where that is asked for.

A finished training leaves `checkpoints/optimizer.safetensors`: of each weight it trained Adam's two moments and the number
of steps, under the weight's name. They are those after its last step, whichever weights were chosen in the end.
"""

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from attune.errors import SettingsError
from attune.files import whole_file
from attune.runs.folder import RunFolder
from attune.runs.models import ancestors
from attune.service.settings import service_settings
from attune.settings import FinetuningSettings
from attune.training.checkpoints import Checkpoints

MOMENTS = ("exp_avg", "exp_avg_sq")
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
    tensors = {}
    for name, parameter in _trained(model).items():
        state = optimizer.state.get(parameter, {})  # nothing of a weight that never had a gradient
        tensors[f"{STEP}.{name}"] = torch.as_tensor(state.get(STEP, 0.0), dtype=torch.float32).cpu()
        for moment in MOMENTS:
            value = state.get(moment, torch.zeros_like(parameter))
            tensors[f"{moment}.{name}"] = value.detach().float().cpu().contiguous()
    with whole_file(Checkpoints(folder).optimizer) as draft:
        save_file(tensors, draft)
        draft.chmod(0o644)


def load_optimizer(folder: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts the optimizer in the state that a finished run left.

    Args:
        folder: of that run.
        model: whose weights are going to be trained.
        optimizer: of these weights.

    Returns:
        The most steps that any weight has behind it.

    Raises:
        SettingsError: if that run trained other weights.
    """
    tensors = load_file(Checkpoints(folder).optimizer)
    trained = _trained(model)
    there = {name.removeprefix(f"{STEP}."): name for name in tensors if name.startswith(f"{STEP}.")}
    unlike = sorted(trained.keys() ^ there.keys()) or sorted(
        name for name, parameter in trained.items() if tensors[f"{MOMENTS[0]}.{name}"].shape != parameter.shape
    )
    if unlike:
        raise SettingsError(
            f"continue_optimizer: the run {folder.reference!r} trained other weights than this one does: {len(unlike)} "
            f"differ, the first is {unlike[0]}. Train the same towers and blocks as it did (lock_image, lock_text, "
            "train_last_blocks), or set continue_optimizer to false"
        )
    for name, parameter in trained.items():
        state = optimizer.state[parameter]
        state[STEP] = tensors[there[name]].to(parameter.device)  # where the fused implementation wants it
        for moment in MOMENTS:  # in the order of memory that the weight has
            state[moment] = torch.empty_like(parameter).copy_(tensors[f"{moment}.{name}"])
    return max((int(tensors[name].item()) for name in there.values()), default=0)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
