"""pytorch-metric-learning's losses, miners and what these are made of, from names and options as JSON has them.

A part of a part is its name, or a name with options: `{"distance": {"name": "LpDistance", "power": 2}}`.
"""

import inspect
import warnings
from typing import Any

from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import nn

from attune.choices import check_option, did_you_mean
from attune.errors import SettingsError
from attune.losses.mended import MENDED
from attune.losses.table import LOSSES, MINERS
from attune.losses.values import check_value

PARTS = {
    "distance": (distances, ("CosineSimilarity", "DotProductSimilarity", "LpDistance", "SNRDistance")),
    "embedding_regularizer": (regularizers, ("LpRegularizer", "ZeroMeanRegularizer")),
    "weight_regularizer": (
        regularizers,
        ("CenterInvariantRegularizer", "LpRegularizer", "RegularFaceRegularizer", "ZeroMeanRegularizer"),
    ),
    "reducer": (
        reducers,
        (
            "AvgNonZeroReducer",
            "DivisorReducer",
            "MeanReducer",
            "MultipleReducers",
            "PerAnchorReducer",
            "SumReducer",
            "ThresholdReducer",
        ),
    ),
}
"""Options that are parts of their own, and what they may be."""
_SAME = {"default_reducer": "reducer"}
COUNTED = ("num_classes", "embedding_size", "descriptors_dim", "K", "l")
"""Arguments that follow from the data and the model."""
NOT_OPTIONS = (*COUNTED, "collect_stats", "mat_based_loss", "aggregation_func", "weight_init_func")
"""The others are of the library's own affairs, or no JSON."""
_FIXED = {
    "AvgNonZeroReducer": ("low",),
    "BatchHardMiner": ("pos_strategy", "neg_strategy"),
    "CosineSimilarity": ("is_inverted", "normalize_embeddings"),
    "DotProductSimilarity": ("is_inverted",),
}
"""Arguments of its ancestors that a class gives a value itself."""
DEEPEST = 5
"""Parts within each other, and reducers beside each other at most; more has no use."""
MOST_REDUCERS = 20


def make_part(setting: str, name: str, options: dict[str, Any], counts: dict[str, int] | None = None) -> nn.Module:
    """A loss, a miner or a part of one.

    Args:
        setting: where the options were given, for messages: `loss_options`.
        name: of the class, a known one.
        options: its arguments.
        counts: those that follow from the data and the model, by their names in `COUNTED`.

    Raises:
        SettingsError: if it has no such option, or takes no such value.
    """
    kind = _class_of(name)
    known = _options_of(kind)
    for option in options:
        check_option(setting, name, option, known)
    for option, value in options.items():
        check_value(f"{setting}.{option}", name, option, value, known[option])
    given: dict[str, Any] = {name: count for name, count in (counts or {}).items() if name in _arguments(kind)}
    given |= {option: _value(f"{setting}.{option}", option, value) for option, value in options.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of numpy's, for the library to mend
            made: nn.Module = kind(**given)
    except Exception as error:  # the library asserts, and raises what comes
        raise SettingsError(f"{setting} = {options!r} cannot be used with {name}: {error or type(error).__name__}") from None
    return made


def _value(setting: str, option: str, value: Any) -> Any:
    option = _SAME.get(option, option)
    if setting.count(".") > DEEPEST or (option == "reducers" and isinstance(value, dict) and len(value) > MOST_REDUCERS):
        raise SettingsError(f"{setting}: give {MOST_REDUCERS} reducers at most, and no parts within {DEEPEST} others")
    if option == "reducers" and isinstance(value, dict):
        return {of: _value(f"{setting}.{of}", "reducer", one) for of, one in value.items()}
    if option not in PARTS or value is None:
        return value
    known = PARTS[option][1]
    spec = {"name": value} if isinstance(value, str) else value
    name = spec.get("name") if isinstance(spec, dict) else None
    if name not in known:
        near = did_you_mean(name, known) if isinstance(name, str) else ""
        raise SettingsError(
            f"{setting} = {value!r} is not known{near}. Give a name, or a name with options such as "
            f"{{'name': {known[0]!r}}}; one of: {', '.join(known)}"
        )
    return make_part(setting, name, {key: inner for key, inner in spec.items() if key != "name"})


def _class_of(name: str) -> type[nn.Module]:
    if name in MENDED:
        return MENDED[name]
    modules = [(losses, LOSSES), (miners, MINERS), *PARTS.values()]
    found: type[nn.Module] = next(getattr(module, name) for module, names in modules if name in names)
    return found


def _options_of(kind: type[nn.Module]) -> dict[str, Any]:
    """What users may set of a class, with its defaults."""
    fixed = (*NOT_OPTIONS, *_FIXED.get(kind.__name__, ()))
    found = {name: default for name, default in _arguments(kind).items() if name not in fixed}
    return {name: "required" if default is inspect.Parameter.empty else default for name, default in found.items()}


def _arguments(kind: type[nn.Module]) -> dict[str, Any]:
    """Arguments of a class and of those that it is made from, with their defaults."""
    found: dict[str, Any] = {}
    for ancestor in kind.__mro__:
        if "__init__" in vars(ancestor) and ancestor is not nn.Module:
            for parameter in inspect.signature(ancestor).parameters.values():
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                    found.setdefault(parameter.name, parameter.default)
    return found
