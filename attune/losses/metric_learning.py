"""Losses of metric learning between pictures and captions."""

import torch
from torch import Tensor

from attune.losses.batch import EmbeddedBatch
from attune.losses.library_loss import LibraryLoss


class MetricLoss(LibraryLoss):
    """A loss in both directions, each over embeddings of the other kind as its reference.

    The mean over pictures that look among captions and captions that look among pictures. A caption's label is its
    picture, so all captions of a picture are right answers. Arguments are those of `LibraryLoss`.
    """

    def compare(self, batch: EmbeddedBatch) -> Tensor:
        """See `LibraryLoss`.

        Raises:
            ValueError: if several captions of a picture come to a loss that takes one.
        """
        images, texts, ignored = batch.images, batch.texts, batch.ignored
        if self.kind.one_each:
            if len(images) != len(texts):
                raise ValueError(f"{type(self.loss).__name__} takes one caption a picture: set multi_positive to false")
            both: Tensor = self.loss(images, ref_emb=texts) + self.loss(texts, ref_emb=images)
            return both / 2
        # Not `owners` itself: where both labels are one object the library takes the diagonal for each item itself.
        owners, pictures = batch.owners(), torch.arange(len(images), device=images.device)
        captions = owners < len(images)  # negatives that come with the data look for nothing
        backwards = None if ignored is None else ignored.T[captions]
        to_text = self.one_way(images, pictures, texts, owners, ignored)
        return (to_text + self.one_way(texts[captions], owners[captions], images, pictures, backwards)) / 2
