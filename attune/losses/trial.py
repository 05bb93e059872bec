"""Whether a run's loss can be computed: what bounds of single values cannot tell is tried."""

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F

from attune.characters import shortened
from attune.errors import SettingsError
from attune.losses.batch import EmbeddedBatch
from attune.losses.cost import Sizes
from attune.losses.cross_batch_memory import remember
from attune.losses.make import Scope, make_loss

ITEMS, CLASSES, DIMENSION = 8, 2, 8


def try_loss(loss: str, options: dict[str, Any], miner: str | None, miner_options: dict[str, Any], sizes: Sizes) -> None:
    """Passes if a loss and its gradients can be computed of two small batches; it takes milliseconds.

    Arguments are those of `make_loss`, and what meets in a batch: without texts the items are single ones, and where there
    are more texts than pictures each picture has two.

    Raises:
        SettingsError: as `make_loss`, and with what went wrong.
    """
    made = make_loss(loss, options, miner, miner_options, Scope(CLASSES, DIMENSION, alone=not sizes.texts))
    captions = min(2, math.ceil(sizes.texts / sizes.pictures))
    failed = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(2):  # a memory looks at the first batch in the second
                batch = _batch(captions, number)
                found = made(batch)
                found.backward()  # type: ignore[no-untyped-call]
                remember(made)
                gradient = batch.images.grad
                if not found.isfinite() or (gradient is not None and not gradient.isfinite().all()):
                    failed = f"the loss is {found.item():g}, and it or its gradients are no numbers"
    except Exception as error:  # whatever a library raises
        failed = f"{type(error).__name__}: {shortened(str(error))}".removesuffix(": ")
    if failed:
        chosen = f" with miner = {miner!r} and miner_options = {shortened(repr(miner_options))}" * (miner is not None)
        raise SettingsError(
            f"loss_options = {shortened(repr(options))} cannot be used with {loss}{chosen}: a trial on {ITEMS} items and "
            f"{ITEMS * captions} captions says: {failed}. Change these options or leave them out"
        )


def _batch(captions: int, seed: int) -> EmbeddedBatch:
    """Items of two classes: right ones nearly opposite and wrong ones nearly the same are among them, and the reverse."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(ITEMS, DIMENSION, generator=generator)
    images[1], images[4] = -images[0], images[0]
    owners = torch.arange(ITEMS).repeat(captions)
    texts = images[owners]
    texts[: ITEMS // 2] *= -1
    near_images, near_texts = (
        F.normalize(each + 0.05 * torch.randn(each.shape, generator=generator), dim=-1).requires_grad_()
        for each in (images, texts)
    )
    positives = owners == torch.arange(ITEMS)[:, None]
    return EmbeddedBatch(
        near_images,
        near_texts,
        logit_scale=torch.tensor(10.0),
        logit_bias=torch.tensor(-10.0),
        positives=positives,
        classes=torch.arange(ITEMS) // (ITEMS // CLASSES),
        scores=torch.linspace(-1, 1, positives.numel()).view(positives.shape),
        rows=torch.arange(ITEMS),
    )
