"""Losses over classes: pictures and captions of a class are drawn to what stands for it, or to each other."""

import torch
from torch import Tensor, nn


class ClassLoss(nn.Module):
    """A loss of pytorch-metric-learning over labelled pictures and their captions, which have their picture's class.

    Both kinds are one set of items: a picture is near to all pictures and captions of its class. Where the loss has weights,
    such as a direction for each class, they are trained with the model's, and are of no use without the loss.

    Args:
        loss: of the library, for as many classes as there are labels.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self,
        images: Tensor,
        texts: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        positives: Tensor | None = None,
        ignored: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        """See `attune.losses.contrastive.clip_loss`; float32 throughout.

        Args:
            images: unit-length embeddings, (pictures, dim).
            texts: unit-length embeddings, (captions, dim).
            logit_scale: not used.
            logit_bias: not used.
            positives: bool (pictures, captions), which tells each caption's picture.
            ignored: not used: look-alikes of a class belong together, and those of two do not.
            classes: int64 (pictures,), from 0.

        Raises:
            ValueError: if there are no classes.
        """
        del logit_scale, logit_bias, ignored
        if classes is None:
            raise ValueError(f"{type(self.loss).__name__} takes pictures with classes")
        owned = classes if positives is None else classes[positives.int().argmax(0)]
        with torch.autocast(images.device.type, enabled=False):
            found: Tensor = self.loss(torch.cat([images.float(), texts.float()]), torch.cat([classes, owned]))
        return found
