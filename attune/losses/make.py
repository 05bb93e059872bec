"""A run's loss, from its name and options."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from attune.choices import check_option
from attune.errors import SettingsError
from attune.losses.batch import Loss
from attune.losses.class_loss import ClassLoss
from attune.losses.contrastive import CONTRASTIVE
from attune.losses.cross_batch_memory import CrossBatchMemory
from attune.losses.graded import GRADED
from attune.losses.metric_learning import MetricLoss
from attune.losses.sum import SumOfLosses
from attune.losses.table import LOSSES, REMEMBERING, check_loss

OURS: dict[str, Loss] = {**CONTRASTIVE, **GRADED}
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "label_smoothing": ("give a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
    "scale": ("give a number above 0", lambda value: _is_number(value) and value > 0),
    "symmetric": ("give true or false", lambda value: isinstance(value, bool)),
}
"""What may be said of their options."""

MEMORY_SIZE = 1024
"""Pictures, and texts, that `CrossBatchMemory` keeps if not told otherwise: its library's own."""

MOST_KEPT = 1_000_000


class Scope(NamedTuple):
    """What a loss with weights or a memory has to know of data and model.

    Attributes:
        classes: how many there are.
        dimension: of the embeddings.
    """

    classes: int = 2
    dimension: int = 2


def make_loss(
    name: str,
    options: dict[str, Any],
    miner: str | None = None,
    miner_options: dict[str, Any] | None = None,
    scope: Scope | None = None,
) -> Loss:
    """A loss over pictures and captions.

    Args:
        name: in `attune.losses.table.LOSSES`.
        options: its own, by the names of the library it comes from.
        miner: in `attune.losses.table.MINERS`, for losses that pick.
        miner_options: of the miner.
        scope: for losses over classes, and for a memory.

    Raises:
        SettingsError: with the options there are, or with what the library says of their values.
    """
    kind, scope = LOSSES[name], scope or Scope()
    if name == "MultipleLosses":
        return _sum(options, miner, miner_options, scope)
    if name == "CrossBatchMemory":
        return _memory(options, miner, miner_options, scope)
    if kind.ours:
        return _ours(name, options)
    # Here, as it takes a second to load, and most runs have no use for it.
    from attune.losses.parts import make_part

    if kind.classes:
        counts = {"num_classes": scope.classes, "embedding_size": scope.dimension, "descriptors_dim": scope.dimension}
        return ClassLoss(make_part("loss_options", name, options, counts), kind)
    loss = make_part("loss_options", name, options)
    return MetricLoss(loss, kind, None if miner is None else make_part("miner_options", miner, miner_options or {}))


def _sum(options: dict[str, Any], miner: str | None, miner_options: dict[str, Any] | None, scope: Scope) -> Loss:
    given = options.get("losses")
    specs = [{"name": one} if isinstance(one, str) else one for one in given] if isinstance(given, list) else []
    if (
        not specs
        or options.keys() - {"losses", "weights"}
        or not all(isinstance(one, dict) and "name" in one for one in specs)
    ):
        raise SettingsError(
            f"loss_options = {options!r}: MultipleLosses takes `losses`, a list of names or of names with options such as "
            "{'name': 'TripletMarginLoss', 'margin': 0.1}, and, if these are not to count alike, `weights`"
        )
    weights = options.get("weights") or [1.0] * len(specs)
    if not isinstance(weights, list) or len(weights) != len(specs) or not all(map(_is_weight, weights)):
        raise SettingsError(f"loss_options.weights = {weights!r}: give a number above 0 for each of the {len(specs)} losses")
    made = []
    for spec in specs:
        try:
            name = check_loss(str(spec["name"]))
        except ValueError as error:
            raise SettingsError(f"loss_options.losses: {spec['name']!r} {error}") from None
        if name == "MultipleLosses":
            raise SettingsError("loss_options.losses: MultipleLosses within MultipleLosses. Name all losses in one list")
        own = {option: value for option, value in spec.items() if option != "name"}
        made.append(make_loss(name, own, miner if LOSSES[name].picks else None, miner_options, scope))
    return SumOfLosses(made, weights)


def _memory(options: dict[str, Any], miner: str | None, miner_options: dict[str, Any] | None, scope: Scope) -> Loss:
    for option in options:
        check_option("loss_options", "CrossBatchMemory", option, {"loss": "required", "memory_size": MEMORY_SIZE})
    given, size = options.get("loss"), options.get("memory_size", MEMORY_SIZE)
    spec = {"name": given} if isinstance(given, str) else given
    if not isinstance(spec, dict) or "name" not in spec:
        raise SettingsError(
            f"loss_options.loss = {given!r}: CrossBatchMemory takes a `loss`, a name or a name with options such as "
            "{'name': 'TripletMarginLoss', 'margin': 0.1}"
        )
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_KEPT:
        raise SettingsError(f"loss_options.memory_size = {size!r}: give a whole number from 1 to {MOST_KEPT:,}")
    try:
        name = check_loss(str(spec["name"]))
    except ValueError as error:
        raise SettingsError(f"loss_options.loss: {spec['name']!r} {error}") from None
    if name not in REMEMBERING:
        raise SettingsError(
            f"loss_options.loss: {name} cannot look at what batches before held. Use one of: {', '.join(REMEMBERING)}"
        )
    own = {option: value for option, value in spec.items() if option != "name"}
    inner = make_loss(name, own, miner if LOSSES[name].picks else None, miner_options, scope)
    assert isinstance(inner, MetricLoss)  # all of `REMEMBERING` are
    return CrossBatchMemory(inner, size, scope.dimension)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_weight(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)


def _ours(name: str, options: dict[str, Any]) -> Loss:
    loss = OURS[name]
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for option, value in options.items():
        check_option("loss_options", name, option, known)
        rule, fits = _VALUES[option]
        if not fits(value):
            raise SettingsError(f"loss_options.{option} = {value!r}: {rule}")
    return partial(loss, **options) if options else loss
