"""A run's loss, from its name and options."""

import inspect
from functools import partial
from typing import Any, NamedTuple

from attune.choices import check_option
from attune.errors import SettingsError
from attune.losses.class_loss import ClassLoss
from attune.losses.contrastive import CONTRASTIVE, Loss
from attune.losses.metric_learning import MetricLoss
from attune.losses.sum import SumOfLosses
from attune.losses.table import LOSSES, check_loss


class Scope(NamedTuple):
    """What a loss over classes has to know of data and model.

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
        scope: for losses over classes.

    Raises:
        SettingsError: with the options there are, or with what the library says of their values.
    """
    kind, scope = LOSSES[name], scope or Scope()
    if name == "MultipleLosses":
        return _sum(options, miner, miner_options, scope)
    if kind.ours:
        return _contrastive(name, options)
    # Here, as it takes a second to load, and most runs have no use for it.
    from attune.losses.parts import make_part

    if kind.classes:
        counts = {"num_classes": scope.classes, "embedding_size": scope.dimension, "descriptors_dim": scope.dimension}
        return ClassLoss(make_part("loss_options", name, options, counts))
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


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _contrastive(name: str, options: dict[str, Any]) -> Loss:
    loss = CONTRASTIVE[name]
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for option, value in options.items():
        check_option("loss_options", name, option, known)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise SettingsError(f"loss_options.{option} = {value!r}: give a number from 0 to below 1")
    return partial(loss, **options) if options else loss
