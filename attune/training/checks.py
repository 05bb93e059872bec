"""What is looked at before the first step: whether the data can teach the model anything, and what the run will take."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attune.data.loss_data import sizes_of
from attune.errors import DataError, SettingsError
from attune.evaluation.measure import Measurement, image_of_text, measure
from attune.kinds import IMAGE, Kind
from attune.losses.batch import Loss
from attune.losses.cost import check_cost
from attune.models.clip import evaluating
from attune.models.trainable import trains_batch_norms
from attune.optimizers import OPTIMIZERS
from attune.training.distributed import agree, least
from attune.training.estimate import FLOAT_BYTES, activation_bytes, estimate, step_seconds
from attune.training.feed import Batch
from attune.training.job import Job
from attune.training.memory import free_bytes, free_caches
from attune.training.pairs_check import ENOUGH_PICTURES, shuffled_pairs_check
from attune.training.teacher import teach

PROBE_PICTURES = 16
"""Enough to see what a picture and its captions cost; on a processor a whole batch of a large model takes minutes."""

TWICE_ENCODED = 4 / 3
"""In pieces every picture goes forward once more: a backward pass takes about as long as two forward passes."""

ROOM = 0.8
"""Share of the free memory that a step may take: other programs need some as well."""


def check_data(job: Job) -> None:
    """Refuses data that no contrastive loss can learn from, or too little of it for the model.

    Raises:
        DataError: if there are too few different pictures or captions.
        SettingsError: see `check_shares`.
    """
    train = job.parts.train
    sizes = [len(rows) for rows in job.feed.plan(1)]
    check_feasible(train.groups, train.captions, sizes, train.kind)
    check_shares(job.clip.model, min(sizes), job.world.size)


def check_shares(model: nn.Module, smallest: int, processes: int) -> None:
    """Refuses batches of which a process gets one picture, if the model has batch norms to train.

    Args:
        model: that is trained.
        smallest: pictures in the smallest batch.
        processes: that share it.

    Raises:
        SettingsError: with what to do.
    """
    if smallest // processes < 2 and trains_batch_norms(model):
        raise SettingsError(
            f"A batch of {smallest} is shared by {processes} processes, so one of them has a single picture, of which the "
            f"model's batch norms can take no variance. Raise batch_size to {2 * processes} or more, lower processes, or "
            "leave the batch norms as they are with lora_rank"
        )


def check_feasible(
    groups: Sequence[str], captions: Sequence[Sequence[str]], batch_sizes: Sequence[int], kind: Kind = IMAGE
) -> None:
    """Refuses data that no contrastive loss can learn from, whatever the model.

    Args:
        groups: of each training picture.
        captions: of each training picture.
        batch_sizes: pairs in each batch of one epoch.
        kind: what the pictures are, for messages.

    Raises:
        DataError: if there is one group only, if all captions are equal, or if a batch has fewer than two pairs.
    """
    if len(set(groups)) < 2:
        raise DataError(
            f"The {len(groups)} training {kind.items} are of {len(set(groups))} group: {kind.items} of one group are never "
            f"told apart, so there is nothing to learn. Give different groups, or none, to {kind.items} that "
            f"{'mean' if kind.of_texts else 'show'} different things"
        )
    distinct = {text for texts in captions for text in texts}
    if len(distinct) < 2 and not kind.is_single:
        raise DataError(
            f"All {len(groups)} training {kind.items} have the same {kind.caption}, {min(distinct, default='')!r}: there "
            f"is nothing to learn. Check the column that the {kind.captions} come from"
        )
    if min(batch_sizes, default=0) < 2:
        raise DataError(
            f"{len(groups)} training {kind.items} of {len(set(groups))} groups make {len(batch_sizes)} batches, of which "
            f"the smallest has {min(batch_sizes, default=0)} pair; a pair is learnt by telling it from others. Raise "
            f"batch_size (its batches are of nearly equal size), push more {kind.items}, or more groups"
        )


def check_pairs(job: Job, measurement: Measurement) -> None:
    """Compares real pairs with shuffled ones under the starting model.

    Args:
        job: the run, at its start.
        measurement: of the validation part; what is looked at if that is a part of the training data, and large enough.

    Raises:
        DataError: if the captions fit their pictures no better than other pictures.
    """
    pairs = job.parts.validation
    if job.settings.val_data or len(pairs) < ENOUGH_PICTURES:  # other data, or too few to tell
        rows = np.random.default_rng(job.settings.seed).permutation(len(job.parts.train))[: 2 * ENOUGH_PICTURES]
        pairs = job.parts.train.take(np.sort(rows))
        measurement = measure(job.clip, pairs, job.cache)
    rng = np.random.default_rng(job.settings.seed)
    found = shuffled_pairs_check(
        measurement.images,
        measurement.texts,
        image_of_text(pairs),
        rng,
        scratch=job.settings.from_scratch,
        narrow=job.settings.model == "starter",  # it has seen emoji only
        kind=pairs.kind,
    )
    job.log(f"pairs: {found.warning or found.figures}", kind="check")


def estimate_run(job: Job) -> None:
    """Tries a few pairs and says what the run will take; takes smaller pieces if a whole batch would not fit.

    Raises:
        SettingsError: if comparing the embeddings of a batch would not fit: pieces do not help with that.
    """
    recipe, model, position = job.recipe, job.clip.model, job.position
    pictures = -(-recipe.batch_size // job.world.size)
    batch = _batch(job, PROBE_PICTURES)
    with evaluating(model), _left_alone(job.criterion):  # running statistics and memories stay as they are
        kept = activation_bytes(lambda: _forward(job, batch), list(model.parameters()))
        _forward(job, batch).backward()  # type: ignore[no-untyped-call]  # gradients take memory too
    free_caches()
    per_picture = agree(kept / max(1, batch.image_counts[job.world.rank]), job.world)
    there = int(least(free_bytes(job.clip.device), job.world))  # all take the same pieces
    if job.clip.device.type == "cpu":
        there //= job.world.size  # they share it
    sizes = sizes_of(job.parts.train, job.settings, recipe.batch_size)
    compared = check_cost(recipe.loss, recipe.loss_options, job.settings.miner, sizes, there)
    trainable = sum(weight.numel() for weight in [*model.parameters(), *job.loss_weights] if weight.requires_grad)
    moments = OPTIMIZERS[recipe.optimizer].moments
    to_come = 0 if job.optimizer.state else FLOAT_BYTES * moments * trainable  # its first step makes them
    free = ROOM * there
    left = free - compared - to_come
    fitting = max(1, int(left / max(per_picture, 1)) // 2)  # embeddings of a locked tower keep nothing
    if position.micro_batch_size is None and per_picture * pictures > left:
        items = job.parts.train.kind.items
        position.micro_batch_size = fitting
        job.log(f"a whole batch would not fit into memory: {position.micro_batch_size} {items} at a time", kind="memory")
    piece = min(pictures, position.micro_batch_size or pictures)
    with evaluating(model), _left_alone(job.criterion):
        seconds = step_seconds(partial(_seconds, job), piece, fitting) * pictures / piece
    if piece < pictures:
        seconds *= TWICE_ENCODED
    job.clear_gradients()
    activations = int(per_picture * piece) + compared
    found = estimate(
        recipe.total_steps,
        seconds,
        sum(tensor.numel() for tensor in [*model.parameters(), *job.loss_weights, *job.loss_memory]),
        trainable,
        moments,
        activations,
        average=job.average is not None,
        short_bytes=max(0, activations + to_come - int(free)),
    )
    job.log(found.describe(), kind="check", steps=found.steps, seconds=found.seconds, memory_bytes=found.memory_bytes)


def _left_alone(criterion: Loss) -> AbstractContextManager[Any]:
    """Keeps a loss from remembering what it is tried on."""
    return evaluating(criterion) if isinstance(criterion, nn.Module) else nullcontext()


def _batch(job: Job, pictures: int) -> Batch:
    """So many pictures of the first batch for each process, or all there are."""
    return job.feed.load(1, 0, job.feed.plan(1)[0][: pictures * job.world.size])


def _seconds(job: Job, pictures: int) -> float:
    """Of a forward and a backward pass: the main process's, so that all try the same next."""
    batch = _batch(job, pictures)
    found = []
    for _ in range(2):  # the first pass of a size also sets things up
        start = time.monotonic()
        _forward(job, batch).backward()  # type: ignore[no-untyped-call]
        if job.clip.device.type == "cuda":
            torch.cuda.synchronize(job.clip.device)
        found.append(time.monotonic() - start)
    return agree(min(found), job.world)


def _forward(job: Job, batch: Batch) -> Tensor:
    taught = teach(job, batch)
    return job.loss(job.towers.encode_images(batch.images), job.towers.encode_texts(batch.texts), batch, taught)
