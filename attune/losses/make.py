"""A run's loss, from its name and options."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from attune.characters import shortened
from attune.choices import check_option
from attune.errors import SettingsError
from attune.losses.batch import Loss
from attune.losses.contrastive import CONTRASTIVE
from attune.losses.cross_batch_memory import CrossBatchMemory
from attune.losses.graded import GRADED
from attune.losses.label_loss import LabelLoss
from attune.losses.library_loss import LibraryLoss
from attune.losses.metric_learning import MetricLoss
from attune.losses.sum import SumOfLosses
from attune.losses.table import ALONE, LOSSES, MEMORY_SIZE, REMEMBERING, read_part
from attune.losses.values import VALUES, check_value

OURS: dict[str, Loss] = {**CONTRASTIVE, **GRADED}
MOST_LOSSES = 20
"""In one sum; more has no use."""


class Scope(NamedTuple):
    """What a loss has to know of data and model.

    Attributes:
        classes: how many there are, for losses with weights.
        dimension: of the embeddings, for losses with weights or a memory.
        alone: whether the data are labelled items of one kind, without captions.
    """

    classes: int = 2
    dimension: int = 2
    alone: bool = False


def make_loss(
    name: str,
    options: dict[str, Any],
    miner: str | None = None,
    miner_options: dict[str, Any] | None = None,
    scope: Scope | None = None,
) -> Loss:
    """A loss over pictures and captions, or over labelled items.

    Args:
        name: in `attune.losses.table.LOSSES`.
        options: its own, by the names of the library it comes from.
        miner: in `attune.losses.table.MINERS`, for losses that pick.
        miner_options: of the miner.
        scope: of the data and the model.

    Raises:
        SettingsError: with the options there are, with what the library says of their values, or with the losses that are
            for labelled items alone.
    """
    kind, scope = LOSSES[name], scope or Scope()
    if scope.alone and not kind.alone:
        raise SettingsError(
            f"{name} takes pairs, and the data are labelled items without captions. Use one of: {', '.join(ALONE)}"
        )
    if kind.ours:
        return _ours(name, options)

    make = partial(make_loss, miner=miner, miner_options=miner_options, scope=scope)
    if name == "MultipleLosses":
        return _sum(options, make)
    if name == "CrossBatchMemory":
        return _memory(options, make, scope)
    # Here, as it takes a second to load, and most runs have no use for it.
    from attune.losses.parts import make_part

    counts = dict.fromkeys(("num_classes", "K"), scope.classes)
    counts |= dict.fromkeys(("embedding_size", "descriptors_dim", "l"), scope.dimension)
    loss = make_part("loss_options", name, options, counts if kind.classes else None)
    chooses = None if miner is None or not kind.picks else make_part("miner_options", miner, miner_options or {})
    return (LabelLoss if kind.classes or scope.alone else MetricLoss)(loss, kind, chooses)


def _sum(options: dict[str, Any], make: Callable[..., Loss]) -> Loss:
    for option in options:
        check_option("loss_options", "MultipleLosses", option, {"losses": "required", "weights": "1 each"})
    given = options.get("losses")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_LOSSES:
        raise SettingsError(
            f"loss_options.losses = {shortened(repr(given))}: MultipleLosses takes `losses`, a list of names or of names "
            f"with options, {MOST_LOSSES} at most, and, if these are not to count alike, `weights`"
        )
    weights = options.get("weights") or [1.0] * len(given)
    rule = VALUES["weights"]
    if not isinstance(weights, list) or len(weights) != len(given) or not all(map(rule.fits, weights)):
        raise SettingsError(
            f"loss_options.weights = {shortened(repr(weights))}: give {rule.says} for each of the {len(given)} losses"
        )
    parts = [read_part("loss_options.losses", one) for one in given]
    if any(name == "MultipleLosses" for name, _ in parts):
        raise SettingsError("loss_options.losses: MultipleLosses within MultipleLosses. Name all losses in one list")
    kept = [own.get("memory_size", MEMORY_SIZE) for name, own in parts if name == "CrossBatchMemory"]
    if len(kept) > 1 and all(isinstance(size, int) for size in kept):
        check_value("loss_options.losses: all memory_size together", "", "memory_size", sum(kept), MEMORY_SIZE)
    return SumOfLosses([make(name, own) for name, own in parts], weights)


def _memory(options: dict[str, Any], make: Callable[..., Loss], scope: Scope) -> Loss:
    for option in options:
        check_option("loss_options", "CrossBatchMemory", option, {"loss": "required", "memory_size": MEMORY_SIZE})
    size = options.get("memory_size", MEMORY_SIZE)
    check_value("loss_options.memory_size", "CrossBatchMemory", "memory_size", size, MEMORY_SIZE)
    name, own = read_part("loss_options.loss", options.get("loss"))
    if name not in REMEMBERING:
        raise SettingsError(
            f"loss_options.loss: {name} cannot look at what batches before held. Use one of: {', '.join(REMEMBERING)}"
        )
    inner = make(name, own)
    assert isinstance(inner, LibraryLoss)  # all of `REMEMBERING` are
    return CrossBatchMemory(inner, size, scope.dimension, scope.alone)


def _ours(name: str, options: dict[str, Any]) -> Loss:
    loss = OURS[name]
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for option, value in options.items():
        check_option("loss_options", name, option, known)
        check_value(f"loss_options.{option}", name, option, value, known[option])
    return partial(loss, **options) if options else loss
