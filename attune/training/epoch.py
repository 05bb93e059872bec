"""An epoch's steps, each watched by the guards."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from attune.errors import TrainingError, TrainingStopped
from attune.losses.cross_batch_memory import remember
from attune.models.trainable import train_mode
from attune.training.average import statistics
from attune.training.distributed import any_of, average_gradients
from attune.training.feed import Batch
from attune.training.guards import chance_loss
from attune.training.job import Job
from attune.training.memory import SmallerPieces, is_out_of_memory, with_enough_memory
from attune.training.optimizer import set_learning_rate
from attune.training.rewind import save
from attune.training.step import backward
from attune.training.teacher import teach

MAX_LOGIT_SCALE = 100.0
"""CLIP's own bound: above it training becomes unstable (Radford et al. 2021, section 2.5). A model that starts above it, as
SigLIP's do, has its start as bound."""


def train_epoch(job: Job, plan: list[np.ndarray]) -> bool:
    """The rest of the epoch at work; False if the guards ask for a roll back."""
    position, recipe = job.position, job.recipe
    batches = job.feed.batches(position.epoch, plan, position.step)
    running = statistics(job.clip.model)
    while position.step < len(plan):
        with job.progress.clock("data"):
            batch = next(batches)
        number = job.step
        learning_rate = recipe.learning_rate_at(number) * position.rate
        set_learning_rate(job.optimizer, learning_rate)
        if job.loss_optimizer is not None:
            set_learning_rate(job.loss_optimizer, job.settings.loss_learning_rate * recipe.share_at(number) * position.rate)
        # All chance in a step follows from the seed and its number: a resumed run repeats an unbroken one.
        torch.manual_seed((job.settings.seed * 1_000_003 + number) * job.world.size + job.world.rank)
        train_mode(job.clip.model)
        unchanged = {name: value.clone() for name, value in running.items()}
        loss = compute_gradients(job, batch)
        with job.progress.clock("optimizer"):
            norm = torch.nn.utils.clip_grad_norm_(job.clip.model.parameters(), job.settings.max_grad_norm).item()
            scale = job.clip.model.logit_scale.exp().item()
            action = job.guards.after_step(number + 1, loss, norm, learning_rate, batch.rows, scale, _chance(job, batch))
            if action == "roll_back":
                return False
            if action == "step":
                for optimizer in job.optimizers:
                    optimizer.step()
                with torch.no_grad():
                    job.clip.model.logit_scale.clamp_(0, math.log(max(MAX_LOGIT_SCALE, job.guards.scale.start_scale)))
                if job.average is not None:
                    job.average.update(job.clip.model)
                remember(job.criterion)
                position.losses.append(loss)
            else:  # the forward pass has put what is no number into the running statistics as well
                for name, value in running.items():
                    value.copy_(unchanged[name])
        position.step += 1
        if job.world.is_main:
            job.progress.step(number + 1, position.epoch, loss, learning_rate, sum(batch.text_counts) or len(batch), scale)
        if any_of(job.stop(), job.world):
            save(job, within_epoch=True)
            raise TrainingStopped(
                f"Training was asked to stop and did, after step {number + 1} of {recipe.total_steps}. "
                "Start the run again to go on from there"
            )
        if job.checkpoints.is_due:
            save(job, within_epoch=True)
    job.clear_gradients()  # validation and checkpoints have their memory
    return True


def compute_gradients(job: Job, batch: Batch) -> float:
    """Leaves the gradients of a batch in the parameters and returns its loss."""
    model, position = job.clip.model, job.position

    def attempt(micro_batch_size: int | None) -> Tensor:
        with job.progress.clock("forward"):
            taught = teach(job, batch, micro_batch_size)
        with job.progress.clock("backward"):
            return backward(
                _clocked(job, job.towers.encode_images),
                _clocked(job, job.towers.encode_texts),
                batch.images,
                batch.texts,
                lambda images, texts: job.loss(images, texts, batch, taught),
                micro_batch_size,
                model=model,
            )

    if job.world.size == 1:
        loss, position.micro_batch_size = with_enough_memory(
            attempt, position.micro_batch_size, len(batch), job.log, job.clear_gradients
        )
    else:  # processes wait for each other in every step: one that tried again alone would leave the others waiting
        job.clear_gradients()
        with _memory_of_one_of_several(job, batch):
            loss = attempt(position.micro_batch_size)
    with job.progress.clock("backward"):  # a GPU is waited for here
        average_gradients([*model.parameters(), *job.loss_weights], job.world)
        return loss.item()


@contextmanager
def _memory_of_one_of_several(job: Job, batch: Batch) -> Iterator[None]:
    """Says in which pieces all are to try again if memory runs out in one of several processes.

    Raises:
        SmallerPieces: with their size.
        TrainingError: if there is none.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        rank, size = job.world.rank, job.world.size
        pieces = min(job.position.micro_batch_size or len(batch), batch.image_counts[rank])
        found = f"Process {rank} of {size} ran out of memory with {pieces} {job.parts.train.kind.items} at a time"
        if pieces < 2:
            raise TrainingError(f"{found}. Set processes lower, choose a smaller model, or free memory") from error
        raise SmallerPieces(found, pieces // 2) from error


def _chance(job: Job, batch: Batch) -> float | None:
    """The loss of a model that tells nothing apart, if that can be said of this loss."""
    if job.recipe.loss != "CLIPLoss":
        return None
    return chance_loss(sum(batch.image_counts), sum(batch.text_counts))


def _clocked(job: Job, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def clocked(rows: Tensor) -> Tensor:
        with job.progress.clock("forward"):
            return encode(rows)

    return clocked
