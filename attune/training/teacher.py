"""The running average of the weights as their teacher: what it finds in a batch is a part of what they are to find."""

import torch

from attune.losses.batch import EmbeddedBatch, Taught
from attune.models.clip import evaluating
from attune.training.distributed import gather
from attune.training.feed import Batch
from attune.training.job import Job
from attune.training.step import pieces_of


def teach(job: Job, batch: Batch, micro_batch_size: int | None = None) -> Taught | None:
    """What the averaged weights find in a batch; None if nothing is to be learnt from them, or nothing yet.

    Captions fit other pictures of a batch too, some better and some worse. An average of the weights knows of that what
    single right answers do not tell, and is steadier than the weights themselves (momentum distillation, Li et al. 2021,
    arXiv:2107.07651, section 3.3). It lags behind the weights, and early on it would hold them back: so its share grows
    evenly over the run, from nothing to what the recipe says. It sees the pictures as the weights do, and drops out nothing.

    Args:
        job: whose average teaches. Call it before the weights encode the batch: their place is taken meanwhile.
        batch: of all processes, which all must call this.
        micro_batch_size: the most rows encoded at a time, as the weights will; None encodes all at once.
    """
    share = job.recipe.self_distillation * job.step / job.recipe.total_steps
    if not share or job.average is None:
        return None
    model = job.clip.model
    with torch.no_grad(), job.average.applied(model), evaluating(model):
        images, texts = (
            torch.cat([encode(piece) for piece in pieces_of(rows, micro_batch_size, model)])
            for encode, rows in ((job.towers.encode_images, batch.images), (job.towers.encode_texts, batch.texts))
        )
        scale = model.logit_scale.exp()
        found = EmbeddedBatch(gather(images, batch.image_counts), gather(texts, batch.text_counts), scale)
        return Taught(found.similarities(scale), share)
