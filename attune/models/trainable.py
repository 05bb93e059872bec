"""Which parameters of a CLIP model are trained, and which modules therefore stay as in evaluation."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from attune.errors import SettingsError
from attune.kinds import TOWERS, Tower
from attune.models.layers import blocks, locate, towers_of


def choose_trainable(model: nn.Module, lock_image: bool, lock_text: bool, last_blocks: int | None) -> None:
    """Freezes what is not to be trained.

    Only ever freezes: a parameter that does not require a gradient before the call does not after it, so call it once,
    on a fresh model. `logit_scale` and `logit_bias` are left as they are.

    Args:
        model: an open_clip model.
        lock_image: freeze the whole image tower (LiT, Zhai et al. 2021, arXiv:2111.07991).
        lock_text: freeze the whole text tower.
        last_blocks: of each tower that is not locked, train this many blocks nearest to the output and what follows
            them, and freeze the rest; 0 leaves only projections, pools and final norms. None trains all of it.
            What counts as a block: see `attune.models.layers.locate`.

    Raises:
        SettingsError: if `last_blocks` is negative or more than a tower has, or if nothing is left to train. The model
            is then unchanged.
    """
    locked = {"image": lock_image, "text": lock_text, "both": False}
    if last_blocks is not None:
        _check_last_blocks(model, last_blocks, [tower for tower in towers_of(model) if not locked[tower]])

    parameters = dict(model.named_parameters())
    frozen, left = [], 0
    for name, place in locate(model).items():
        below = place.tower != "both" and last_blocks is not None and place.depth < place.of - last_blocks
        if locked[place.tower] or below:
            frozen.append(parameters[name])
        elif place.tower != "both":
            left += parameters[name].requires_grad
    if not left:
        raise SettingsError(
            f"lock_image={lock_image}, lock_text={lock_text} and train_last_blocks={last_blocks} leave nothing to train. "
            "Leave at least one tower unlocked, and a block of it if nothing comes after its blocks"
        )
    for parameter in frozen:
        parameter.requires_grad_(False)


def tower_is_frozen(model: nn.Module, tower: Tower) -> bool:
    """Whether no parameter of the tower is trained: its embeddings then stay the same and need computing only once."""
    parameters = dict(model.named_parameters())
    return not any(parameters[name].requires_grad for name, place in locate(model).items() if place.tower == tower)


def frozen_batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch norms that have weights, all of them frozen."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and _is_frozen(module)]


def trained_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """All other batch norms."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and not _is_frozen(module)]


def trains_batch_norms(model: nn.Module) -> bool:
    """Whether a batch norm will take the mean and variance of what it is given: of one row it may be unable to."""
    return bool(trained_batch_norms(model))


def train_mode(model: nn.Module) -> None:
    """`model.train()`, except for what is frozen: use it wherever that would be called.

    In training mode a batch norm updates its running statistics although its weights are frozen, so a "frozen" tower
    would drift; frozen batch norms are put in evaluation mode. So is all of a tower that is frozen as a whole, for
    dropout would only add noise to embeddings that cannot adapt to it.
    """
    model.train()
    for batch_norm in frozen_batch_norms(model):
        batch_norm.eval()
    for tower in TOWERS:
        if tower_is_frozen(model, tower):
            for part in _parts(model, tower):
                part.eval()


def _check_last_blocks(model: nn.Module, last_blocks: int, towers: list[Tower]) -> None:
    counts = {tower: blocks(model, tower) for tower in towers}
    too_few = [f"the {tower} tower has {count} blocks" for tower, count in counts.items() if last_blocks > count]
    if last_blocks < 0 or too_few:
        has = " and ".join(too_few) or "it must not be negative"
        raise SettingsError(
            f"train_last_blocks is {last_blocks}, but {has}. Choose from 0 to {min(counts.values())}, "
            "or leave it out to train all blocks"
        )


def _is_frozen(module: nn.Module) -> bool:
    own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    return bool(own) and not any(own)


def _parts(model: nn.Module, tower: Tower) -> list[nn.Module]:
    """The top-level modules of a tower; open_clip's `CLIP` has several of the text tower on itself."""
    return [module for name, module in model.named_children() if (name == "visual") == (tower == "image")]
