"""The three parts of a run's data: what it trains on, what chooses the checkpoint, what before and after are measured on."""

from dataclasses import dataclass

import numpy as np

from attune.characters import shortened
from attune.data.pairs import Pairs, load_pairs
from attune.data.split import split_by_group
from attune.errors import DataError
from attune.settings import FinetuningSettings

SHOWN = 5
"""Shared pictures or groups that are named."""


@dataclass(frozen=True)
class Parts:
    """Disjoint by group.

    Attributes:
        train: pairs to learn from; empty if nothing is trained.
        validation: pairs that choose the best checkpoint; empty if nothing is trained.
        test: pairs that no decision depends on: before and after are measured here.
        retention: other pairs that the model must stay good at, if any were given.
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    retention: Pairs | None = None


def load_parts(
    settings: FinetuningSettings, train_fingerprint: str, eval_fingerprint: str = "", retention_fingerprint: str = ""
) -> Parts:
    """Splits a run's data, the same way every time.

    Args:
        settings: of the run.
        train_fingerprint: content of `train_data`, or empty: then all of `eval_data` is the test part.
        eval_fingerprint: content of `eval_data`, or empty.
        retention_fingerprint: content of `retention_data`, or empty.

    Raises:
        DataError: if a part would be too small, or pictures or groups of the test part are in the training data.
    """
    if not settings.trains:
        test = _load_test(eval_fingerprint, settings)
        return Parts(test.take([]), test.take([]), test)
    pairs = load_pairs(train_fingerprint)
    if eval_fingerprint:
        test = _load_test(eval_fingerprint, settings)
        _refuse_leak(pairs, test, settings)
    else:
        rest, held_out = _split(pairs, settings.eval_split, settings, seed=settings.seed)
        pairs, test = pairs.take(rest), pairs.take(held_out)
    train, validation = _split(pairs, settings.val_split, settings, seed=settings.seed + 1)
    retention = load_pairs(retention_fingerprint) if retention_fingerprint else None
    return Parts(pairs.take(train), pairs.take(validation), test, retention)


def check_labels(train: Pairs, settings: FinetuningSettings) -> None:
    """Passes if every training picture has a label, and there are two at least.

    Raises:
        DataError: with what is missing.
    """
    what = f"sampler = {settings.sampler!r}" if settings.sampler == "class" else f"loss = {settings.loss!r}"
    without = sum(not label for label in train.labels)
    if without:
        raise DataError(
            f"{what} takes a label for every picture, and {without} of the {len(train)} training pictures of "
            f"{settings.train_data!r} have none. Push them with a column `label`, or choose another"
        )
    if len(set(train.labels)) < 2:
        raise DataError(
            f"{what}: all pictures of {settings.train_data!r} have the label {train.labels[0]!r}. Two are needed"
        )


def _load_test(fingerprint: str, settings: FinetuningSettings) -> Pairs:
    test = load_pairs(fingerprint)
    if len(test) < 2:
        raise DataError(f"eval_data {settings.eval_data!r} has {len(test)} picture; at least 2 are needed to rank any")
    return test


def _split(pairs: Pairs, fraction: float, settings: FinetuningSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return split_by_group(pairs.groups, fraction, seed)
    except DataError as error:
        raise DataError(f"Dataset {settings.train_data!r} is too small. {error}") from error


def _refuse_leak(train: Pairs, test: Pairs, settings: FinetuningSettings) -> None:
    images, groups = set(train.images), set(train.groups)
    shared: dict[str, str] = {}
    for image, group, captions in zip(test.images, test.groups, test.captions, strict=True):
        if image in images:
            shared[image] = f"picture {image[:12]} ({shortened(captions[0], 60)!r})"
        elif group in groups:
            shared[group] = f"group {shortened(group, 60)!r}"
    if shared:
        named = ", ".join(list(shared.values())[:SHOWN])
        more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        raise DataError(
            f"eval_data {settings.eval_data!r} and train_data {settings.train_data!r} share {len(shared)} pictures or "
            f"groups: {named}{more}. A model would be measured on what it learnt. Remove them from one of the two"
        )
