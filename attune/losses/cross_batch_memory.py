"""A loss of metric learning that also looks at what batches before held."""

from typing import cast

import torch
from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch
from attune.losses.metric_learning import MetricLoss


class CrossBatchMemory(nn.Module):
    """A loss among more than its batch (Wang et al. 2020, arXiv:1912.06798).

    The last embeddings of pictures and of texts are kept, and the others look among them too. What is kept is as it was
    embedded then, without gradients; models move slowly, so it is nearly what they would make of it now. Pictures go by
    the number of their training row, so a picture that comes again meets its own captions of before as right answers.
    Look-alikes are left out of a batch's own negatives alone: the memory knows pictures by their numbers only.

    Args:
        loss: of metric learning, with a miner or without.
        memory_size: pictures that are kept, and texts: the newest so many of each.
        dim: of the embeddings.
    """

    def __init__(self, loss: MetricLoss, memory_size: int, dim: int) -> None:
        super().__init__()
        self.loss = loss
        for kind in ("images", "texts"):
            # Buffers, so that they are part of a checkpoint: a resumed run goes on with the same memory.
            self.register_buffer(f"{kind}_kept", torch.zeros(memory_size, dim))
            self.register_buffer(f"{kind}_labels", torch.zeros(memory_size, dtype=torch.int64))
            self.register_buffer(f"{kind}_count", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch, float32 throughout; `rows` are by default the places. In training it is kept afterwards."""
        with torch.autocast(batch.images.device.type, enabled=False):
            batch = batch.in_float32()
            images, texts, ignored = batch.images, batch.texts, batch.ignored
            owners = batch.owners()
            captions = owners < len(images)
            labels = torch.arange(len(images), device=images.device) if batch.rows is None else batch.rows
            # A negative that comes with the data belongs to no picture, now or ever.
            text_labels = torch.cat([labels, labels.new_full((len(texts),), -1)])[owners]
            backwards = None if ignored is None else ignored.T[captions]
            to_text = self._one_way(images, labels, texts, text_labels, ignored, "texts")
            to_image = self._one_way(texts[captions], text_labels[captions], images, labels, backwards, "images")
        found = (to_text + to_image) / 2
        if self.training and found.isfinite():  # a step that is skipped must leave nothing behind that is no number
            self._keep("images", images, labels)
            self._keep("texts", texts, text_labels)
        return found

    def _one_way(
        self, queries: Tensor, labels: Tensor, answers: Tensor, answer_labels: Tensor, ignored: Tensor | None, kind: str
    ) -> Tensor:
        """The loss of queries among the answers of the batch and those that are kept."""
        kept, kept_labels, count = self._memory(kind)
        there = min(int(count), len(kept))
        if ignored is not None:
            ignored = torch.cat([ignored, ignored.new_zeros(len(queries), there)], 1)
        return self.loss.one_way(
            queries,
            labels,
            torch.cat([answers, kept[:there]]),
            torch.cat([answer_labels, kept_labels[:there]]),
            ignored,
        )

    @torch.no_grad()
    def _keep(self, kind: str, embeddings: Tensor, labels: Tensor) -> None:
        """Writes over the oldest."""
        kept, kept_labels, count = self._memory(kind)
        embeddings, labels = embeddings[-len(kept) :], labels[-len(kept) :]
        places = (count + torch.arange(len(labels), device=kept.device)) % len(kept)
        kept[places], kept_labels[places] = embeddings.detach(), labels
        count += len(labels)

    def _memory(self, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """What is kept of a kind, (memory_size, dim); the labels, (memory_size,); how many came in all."""
        return (
            cast(Tensor, getattr(self, f"{kind}_kept")),
            cast(Tensor, getattr(self, f"{kind}_labels")),
            cast(Tensor, getattr(self, f"{kind}_count")),
        )
