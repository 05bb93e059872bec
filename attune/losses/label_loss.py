"""Losses over labels: items of a class are drawn to what stands for it, or to each other."""

import torch
from torch import Tensor

from attune.losses.batch import EmbeddedBatch
from attune.losses.library_loss import LibraryLoss, all_triplets


class LabelLoss(LibraryLoss):
    """Of labelled items: pictures and their captions, which have their picture's class, or items of one kind alone.

    With captions, both kinds are one set of items: a picture is near to all pictures and captions of its class. Where the
    loss has weights, such as a direction for each class, they are trained with the model's, and are of no use without the
    loss. Arguments are those of `LibraryLoss`.
    """

    def compare(self, batch: EmbeddedBatch) -> Tensor:
        """See `LibraryLoss`. Look-alikes of a class belong together, and those of two do not: `ignored` is not used.

        Where it compares items with each other and no two of the batch share a class, it is 0, with gradients of 0: no item
        has a right answer there, and some losses of the library fail then.

        Raises:
            ValueError: if there are no classes.
        """
        items, labels = batch.images, batch.classes
        if labels is None:
            raise ValueError(f"{type(self.loss).__name__} takes items with classes")
        if len(batch.texts):
            items, labels = torch.cat([items, batch.texts]), torch.cat([labels, labels[batch.owners()]])
        compares = self.kind.meets or not self.kind.classes
        if compares and labels.sort().values.diff().all():
            return 0 * items.sum()
        return self._within(items, labels)

    def _within(self, items: Tensor, labels: Tensor) -> Tensor:
        """The loss of items (n, dim) among each other."""
        picked = None
        if self.miner is not None:
            picked = self.miner(items.detach(), labels)
        elif self.takes_all_triplets:
            same = labels[:, None] == labels
            picked = all_triplets(same.clone().fill_diagonal_(False), ~same)
        found: Tensor = self.loss(items, labels, picked)
        return found
