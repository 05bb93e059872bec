"""A loss of metric learning that also looks at what batches before held."""

from typing import cast

import torch
from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch, Loss
from attune.losses.library_loss import LibraryLoss

Kept = dict[str, tuple[Tensor, Tensor]]
"""Embeddings and labels by kind: of `images`, and of `texts` where there are any."""


class CrossBatchMemory(nn.Module):
    """A loss among more than its batch (Wang et al. 2020, arXiv:1912.06798).

    The last embeddings of pictures and of texts are kept, and the others look among them too. What is kept is as it was
    embedded then, without gradients; models move slowly, so it is nearly what they would make of it now. Pictures go by
    the number of their training row, so a picture that comes again meets its own captions of before as right answers.
    Look-alikes are left out of a batch's own negatives alone: the memory knows pictures by their numbers only.

    Labelled items without captions look among the items that are kept, and go by their classes: the loss is the mean of
    that and of the loss within the batch, so that no item is its own right answer.

    Args:
        loss: of metric learning, with a miner or without; over labelled items one that takes such.
        memory_size: pictures that are kept, and texts: the newest so many of each.
        dim: of the embeddings.
        alone: whether it is over labelled items without captions.
    """

    def __init__(self, loss: LibraryLoss, memory_size: int, dim: int, alone: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.alone = alone
        self._seen: Kept = {}
        for kind in ("images",) if alone else ("images", "texts"):
            # Buffers, so that they are part of a checkpoint: a resumed run goes on with the same memory.
            self.register_buffer(f"{kind}_kept", torch.zeros(memory_size, dim))
            self.register_buffer(f"{kind}_labels", torch.zeros(memory_size, dtype=torch.int64))
            self.register_buffer(f"{kind}_count", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch, float32 throughout; `rows` are by default the places. The batch waits for `remember`."""
        with torch.autocast(batch.images.device.type, enabled=False):
            batch = batch.in_float32()
            found, seen = self._of_items(batch) if self.alone else self._of_pairs(batch)
        if self.training:
            self._seen = {kind: (embeddings.detach(), labels) for kind, (embeddings, labels) in seen.items()}
        return found

    @torch.no_grad()
    def remember(self) -> None:
        """Keeps the last batch of training, over the oldest.

        To be called once its step was taken: a batch that was skipped, that did not fit into memory, or whose loss was no
        number, leaves nothing behind.
        """
        for kind, (embeddings, labels) in self._seen.items():
            kept, kept_labels, count = self._memory(kind)
            embeddings, labels = embeddings[-len(kept) :], labels[-len(kept) :]
            places = (count + torch.arange(len(labels), device=kept.device)) % len(kept)
            kept[places], kept_labels[places] = embeddings, labels
            count += len(labels)
        self._seen = {}

    def _of_pairs(self, batch: EmbeddedBatch) -> tuple[Tensor, Kept]:
        images, texts, ignored = batch.images, batch.texts, batch.ignored
        owners = batch.owners()
        captions = owners < len(images)
        labels = torch.arange(len(images), device=images.device) if batch.rows is None else batch.rows
        # A negative that comes with the data belongs to no picture, now or ever.
        text_labels = torch.cat([labels, labels.new_full((len(texts),), -1)])[owners]
        backwards = None if ignored is None else ignored.T[captions]
        to_text = self._one_way(images, labels, texts, text_labels, ignored, "texts")
        to_image = self._one_way(texts[captions], text_labels[captions], images, labels, backwards, "images")
        return (to_text + to_image) / 2, {"images": (images, labels), "texts": (texts, text_labels)}

    def _of_items(self, batch: EmbeddedBatch) -> tuple[Tensor, Kept]:
        within: Tensor = self.loss(batch)
        assert batch.classes is not None  # the loss has looked
        kept, labels = self._kept("images")
        seen = {"images": (batch.images, batch.classes)}
        if not torch.isin(batch.classes, labels).any():  # nothing is right, which some losses of the library cannot say
            return within, seen
        return (within + self.loss.one_way(batch.images, batch.classes, kept, labels)) / 2, seen

    def _one_way(
        self, queries: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, ignored: Tensor | None, kind: str
    ) -> Tensor:
        """The loss of queries among the answers of the batch and those that are kept."""
        kept, kept_labels = self._kept(kind)
        if ignored is not None:
            ignored = torch.cat([ignored, ignored.new_zeros(len(queries), len(kept))], 1)
        answers, answer_labels = torch.cat([answers, kept]), torch.cat([answer_labels, kept_labels])
        return self.loss.one_way(queries, labels, answers, answer_labels, ignored)

    def _kept(self, kind: str) -> tuple[Tensor, Tensor]:
        """What there is of a kind so far, (up to memory_size, dim), and the labels."""
        kept, labels, count = self._memory(kind)
        there = min(int(count), len(kept))
        return kept[:there], labels[:there]

    def _memory(self, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """Places for a kind, (memory_size, dim); for the labels, (memory_size,); how many came in all."""
        return (
            cast(Tensor, getattr(self, f"{kind}_kept")),
            cast(Tensor, getattr(self, f"{kind}_labels")),
            cast(Tensor, getattr(self, f"{kind}_count")),
        )


def remember(loss: Loss) -> None:
    """Has each memory in a loss keep the last batch; see `CrossBatchMemory.remember`."""
    for part in loss.modules() if isinstance(loss, nn.Module) else ():
        if isinstance(part, CrossBatchMemory):
            part.remember()
