"""Gradient checkpointing: activations within a block are computed again for the backward pass instead of being kept."""

from collections.abc import Collection
from typing import Any

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer

from attune.errors import SettingsError
from attune.kinds import Tower


def checkpoint_gradients(model: Any, towers: Collection[Tower]) -> None:
    """Turns it on, by the means of open_clip, timm or Hugging Face. Gradients stay the same.

    Buffers that a forward pass in training mode changes, such as a batch norm's, change in the second one again:
    `attune.training.step.backward` puts them back.

    Args:
        model: an open_clip model; its weights may be on the meta device.
        towers: that are trained; in others nothing is kept anyway.

    Raises:
        SettingsError: if one of the towers cannot.
    """
    try:
        if "image" in towers:
            _image(model.visual)
        if "text" in towers:
            _text(model)
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise SettingsError(
            f"model_options.gradient_checkpointing: a tower of this model has no means for it ({error}). Set it to false, "
            "or lock that tower; a smaller micro_batch_size saves memory with any model"
        ) from error


def _image(tower: Any) -> None:
    if isinstance(tower, ModifiedResNet):
        raise NotImplementedError("open_clip's ResNet has none")
    if hasattr(tower, "trunk"):  # open_clip's own call goes on without where timm refuses
        if not hasattr(tower.trunk, "set_grad_checkpointing"):
            raise NotImplementedError(f"timm's {type(tower.trunk).__name__} has none")
        tower.trunk.set_grad_checkpointing(True)
    else:
        tower.set_grad_checkpointing(True)


def _text(model: Any) -> None:
    tower = getattr(model, "text", None)
    if tower is None:
        model.transformer.grad_checkpointing = True
    elif isinstance(tower, TextTransformer):
        tower.set_grad_checkpointing(True)
    else:
        own = tower.transformer  # the second name is that of transformers before 5.20
        enable = getattr(own, "activation_checkpointing_enable", None) or own.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # the other kind asks for inputs with a gradient, which frozen embeddings have not
