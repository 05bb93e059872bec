"""What is looked at before the first step: whether the data can teach the model anything, and what the run will take."""

import os
import time

import numpy as np
import torch
from torch import Tensor

from attune.evaluation import Measurement, image_of_text, measure
from attune.losses import LOSSES
from attune.models.clip import evaluating
from attune.training.feed import Batch
from attune.training.job import Job
from attune.training.preflight import ENOUGH_PICTURES, activation_bytes, check_feasible, estimate, shuffled_pairs_check

PROBE_PICTURES = 8
"""Enough to see what a picture and its captions cost; on a processor a whole batch of a large model takes minutes."""

ROOM = 0.8
"""Share of the free memory that a step may take: other programs need some as well."""


def check_data(job: Job) -> None:
    """Refuses data that no contrastive loss can learn from.

    Raises:
        DataError: if there are too few different pictures or captions.
    """
    train = job.parts.train
    check_feasible(train.groups, train.captions, [len(rows) for rows in job.feed.plan(1)])


def check_pairs(job: Job, measurement: Measurement) -> None:
    """Compares real pairs with shuffled ones under the starting model.

    Args:
        job: the run, at its start.
        measurement: of the validation part.

    Raises:
        DataError: if the captions fit their pictures no better than other pictures.
    """
    pairs = job.parts.validation
    if len(pairs) < ENOUGH_PICTURES:  # too few to tell: some training pictures come along
        rows = np.random.default_rng(job.settings.seed).permutation(len(job.parts.train))[: 2 * ENOUGH_PICTURES]
        pairs = job.parts.train.take(np.sort(rows))
        measurement = measure(job.clip, pairs, job.cache)
    rng = np.random.default_rng(job.settings.seed)
    found = shuffled_pairs_check(
        measurement.images, measurement.texts, image_of_text(pairs), rng, scratch=job.settings.model.endswith("#scratch")
    )
    job.log(f"pairs: {found.warning or found.figures}", kind="check")


def estimate_run(job: Job) -> None:
    """Tries a few pairs and says what the run will take; takes smaller pieces if a whole batch would not fit."""
    recipe, model, position = job.recipe, job.clip.model, job.position
    rows = job.feed.plan(1)[0][:PROBE_PICTURES]
    batch = job.feed.load(1, 0, rows)
    start = time.monotonic()
    with evaluating(model):  # running statistics stay as they are
        kept = activation_bytes(lambda: _loss(job, batch), list(model.parameters()))
        _loss(job, batch).backward()  # type: ignore[no-untyped-call]
    seconds = (time.monotonic() - start) * recipe.batch_size / len(rows) / job.world.size
    job.optimizer.zero_grad(set_to_none=True)
    per_picture, free = kept / len(rows), ROOM * _free_bytes(job.clip.device)
    pictures = -(-recipe.batch_size // job.world.size)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if position.micro_batch_size is None and per_picture * pictures > free:
        position.micro_batch_size = max(1, int(free / per_picture) // 2)
        job.log(f"a whole batch would not fit into memory: {position.micro_batch_size} pictures at a time", kind="memory")
    found = estimate(
        recipe.total_steps,
        seconds,
        sum(parameter.numel() for parameter in model.parameters()),
        trainable,
        int(per_picture * min(pictures, position.micro_batch_size or pictures)),
        average=job.average is not None,
        available_bytes=int(free),
    )
    job.log(found.describe(), kind="check", steps=found.steps, seconds=found.seconds, memory_bytes=found.memory_bytes)


def _loss(job: Job, batch: Batch) -> Tensor:
    images, texts = job.towers.encode_images(batch.images), job.towers.encode_texts(batch.texts)
    model = job.clip.model
    bias = getattr(model, "logit_bias", None)
    return LOSSES[job.recipe.loss](images, texts, model.logit_scale.exp(), bias, batch.positives, batch.ignored)


def _free_bytes(device: torch.device) -> int:
    """Memory that is free on a GPU, or available in the main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
