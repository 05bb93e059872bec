"""The three parts of a run's data: what it trains on, what chooses the checkpoint, what before and after are measured on."""

import math
from dataclasses import dataclass

import numpy as np

from attune.data.overlap import refuse_overlap
from attune.data.pairs import Pairs, load_pairs
from attune.data.split import split_by_group
from attune.errors import DataError
from attune.settings import FinetuningSettings

MOST_SET_ASIDE = 0.1


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
    settings: FinetuningSettings,
    train_fingerprint: str,
    eval_fingerprint: str = "",
    retention_fingerprint: str = "",
    val_fingerprint: str = "",
) -> Parts:
    """Splits a run's data, the same way every time.

    Args:
        settings: of the run.
        train_fingerprint: content of `train_data`, or empty: then all of `eval_data` is the test part.
        eval_fingerprint: content of `eval_data`, or empty.
        retention_fingerprint: content of `retention_data`, or empty.
        val_fingerprint: content of `val_data`, or empty.

    Raises:
        DataError: if a part would be too small, or pictures or groups of one are in another.
    """
    if not settings.trains:
        whole = _load_measured("eval_data", eval_fingerprint, settings)
        return Parts(whole.take([]), whole.take([]), whole)
    pairs = load_pairs(train_fingerprint)
    given = {"train_data": pairs}
    for name, fingerprint in (("eval_data", eval_fingerprint), ("val_data", val_fingerprint)):
        if fingerprint:
            given[name] = _load_measured(name, fingerprint, settings)
    refuse_overlap(given, {name: getattr(settings, name) for name in given})
    test, validation = given.get("eval_data"), given.get("val_data")
    if test is None:
        rest, held_out = _split(pairs, settings.eval_split, settings, seed=settings.seed)
        pairs, test = pairs.take(rest), pairs.take(held_out)
    if validation is None:
        share = settings.val_split if settings.val_split != "auto" else validation_share(pairs)
        rest, held_out = _split(pairs, share, settings, seed=settings.seed + 1)
        pairs, validation = pairs.take(rest), pairs.take(held_out)
    retention = load_pairs(retention_fingerprint) if retention_fingerprint else None
    return Parts(pairs, validation, test, retention)


def _load_measured(setting: str, fingerprint: str, settings: FinetuningSettings) -> Pairs:
    pairs = load_pairs(fingerprint)
    if len(pairs) < 2:
        raise DataError(
            f"{setting} {getattr(settings, setting)!r} has {len(pairs)} {pairs.kind.item}; at least 2 are needed to rank any"
        )
    return pairs


def validation_share(pairs: Pairs) -> float:
    """The share of groups that `val_split="auto"` sets aside: a tenth, and of more than 400 groups twice their square root.

    What is set aside is not learnt from, and a small set can spare little. A few dozen tell a run that fails from one that
    learns, and `attune.training.compare` takes them for no more than they are. It is a tenth where that cannot be said:
    of single items, whose right answers are those of their label in the same part, and of captions with scores.
    """
    if pairs.kind.is_single or pairs.is_graded:
        return MOST_SET_ASIDE
    return min(MOST_SET_ASIDE, 2 / math.sqrt(len(set(pairs.groups))))


def _split(pairs: Pairs, fraction: float, settings: FinetuningSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return split_by_group(pairs.groups, fraction, seed, pairs.kind.items)
    except DataError as error:
        raise DataError(f"Dataset {settings.train_data!r} is too small. {error}") from error
