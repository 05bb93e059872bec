"""Losses over classes: pictures and captions of a class are drawn to what stands for it, or to each other."""

import torch
from torch import Tensor

from attune.losses.batch import EmbeddedBatch
from attune.losses.library_loss import LibraryLoss


class ClassLoss(LibraryLoss):
    """A loss over labelled pictures and their captions, which have their picture's class.

    Both kinds are one set of items: a picture is near to all pictures and captions of its class. Where the loss has weights,
    such as a direction for each class, they are trained with the model's, and are of no use without the loss.
    """

    def compare(self, batch: EmbeddedBatch) -> Tensor:
        """See `LibraryLoss`. Look-alikes of a class belong together, and those of two do not: `ignored` is not used.

        Raises:
            ValueError: if there are no classes.
        """
        if batch.classes is None:
            raise ValueError(f"{type(self.loss).__name__} takes pictures with classes")
        items, classes = torch.cat([batch.images, batch.texts]), torch.cat([batch.classes, batch.classes[batch.owners()]])
        found: Tensor = self.loss(items, classes)
        return found
