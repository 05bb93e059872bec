"""What options of losses, miners and their parts may be.

Looked at before anything is made: the library takes whatever it is given, and some values would take all memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from attune.characters import shortened
from attune.choices import did_you_mean
from attune.errors import SettingsError


class Rule(NamedTuple):
    """Of the values of an option.

    Attributes:
        says: what to give: `a number from 0 to 1`.
        fits: whether a value, of whatever type, is one.
        known: words that are among them.
    """

    says: str
    fits: Callable[[Any], bool]
    known: tuple[str, ...] = ()


def _number(least: float, most: float) -> Rule:
    """Bounds of either sign; what is no number, and what has no end, is within none."""
    return Rule(
        f"a number from {least:,} to {most:,}",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most,
    )


def _whole(least: int, most: int) -> Rule:
    return Rule(
        f"a whole number from {least:,} to {most:,}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def _word(*known: str) -> Rule:
    return Rule(f"one of: {', '.join(known)}", lambda value: isinstance(value, str) and value in known, known)


def _all_or(rule: Rule) -> Rule:
    return Rule(f"'all', or {rule.says}", lambda value: value == "all" or rule.fits(value), ("all",))


def _range_of(rule: Rule) -> Rule:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(map(rule.fits, value)) and bool(value[0] <= value[1])

    return Rule(f"[lowest, highest], each {rule.says}", fits)


_TRUE_OR_FALSE = Rule("true or false", lambda value: isinstance(value, bool))
_ABOVE_0 = _number(1e-6, 10_000)
_ANY = _number(-100, 100)  # of distances or similarities: 2 is the longest between embeddings, and powers are more
_WEIGHT = _number(0, 10_000)
_COUNT = _whole(1, 1000)
_DEGREES = _number(0, 180)
_TEMPERATURE = _number(1e-6, 1000)
_STRATEGY = _word("hard", "semihard", "easy", "all")

VALUES: dict[str, Rule] = {
    "Tn": _number(0, 50),
    "Tp": _number(0, 50),
    "allowed_neg_range": _range_of(_ANY),
    "allowed_pos_range": _range_of(_ANY),
    "alpha": _ABOVE_0,
    "angle": _number(0, 90),
    "anneal": _TEMPERATURE,
    "b": _number(0.001, 1000),
    "base": _ANY,
    "beta": _ABOVE_0,
    "centers_per_class": _whole(1, 100),
    "covariance_v": _WEIGHT,
    "cutoff": _number(0.01, 1.9),
    "delta": _number(0.002, 2),
    "embedding_reg_weight": _WEIGHT,
    "eps": _number(1e-12, 1),
    "epsilon": _ANY,
    "filter_percentage": _number(0.001, 1),
    "gamma": _ABOVE_0,
    "high": _number(-1e6, 1e6),
    "imbalance": _number(0, 1),
    "invariance_lambda": _WEIGHT,
    "is_inverted": _TRUE_OR_FALSE,
    "la": _ABOVE_0,
    "label_smoothing": _number(0, 0.999),
    "lambdaC": _WEIGHT,
    "lambda_minus": _WEIGHT,
    "lambda_plus": _WEIGHT,
    "learn_beta": _TRUE_OR_FALSE,
    "low": _number(-1e6, 1e6),
    "m": _number(0, 1),
    "margin": _ANY,
    "margin_minus": _ANY,
    "margin_plus": _ANY,
    "memory_size": _whole(1, 1_000_000),
    "min_val": _number(-100, -2),  # margins are from -2 on, and have to be in a bin
    "momentum": _number(0, 1),
    "n_bins": _whole(2, 1000),
    "neg_eps": _ANY,
    "neg_margin": _ANY,
    "neg_per_bin": _whole(1, 50),
    "neg_strategy": _STRATEGY,
    "nonzero_loss_cutoff": _number(0.01, 4),
    "normalize_embeddings": _TRUE_OR_FALSE,
    "nu": _WEIGHT,
    "num_bins": _COUNT,
    "p": _number(1, 10),
    "pos_eps": _ANY,
    "pos_margin": _ANY,
    "pos_per_bin": _whole(1, 50),
    "pos_strategy": _STRATEGY,
    "power": _number(0.1, 10),
    "scale": _ABOVE_0,
    "smooth_loss": _TRUE_OR_FALSE,
    "softmax_scale": _ABOVE_0,
    "sub_centers": _whole(1, 100),
    "swap": _TRUE_OR_FALSE,
    "symmetric": _TRUE_OR_FALSE,
    "temperature": _TEMPERATURE,
    "triplets_per_anchor": _all_or(_COUNT),
    "type_of_triplets": _STRATEGY,
    "variance_mu": _WEIGHT,
    "variant": _word("Ds", "Dq", "Iu", "Ib", "O"),
    "weight_reg_weight": _WEIGHT,
    "weights": _number(1e-6, 1e6),
    # Where a name means something else than in the others.
    "AngularLoss.alpha": _number(1, 89),  # degrees
    "ArcFaceLoss.margin": _DEGREES,
    "LargeMarginSoftmaxLoss.margin": _whole(1, 10),  # by which an angle is multiplied
    "ManifoldLoss.alpha": _number(0.001, 0.999),
    "MarginLoss.beta": _ANY,
    "RankedListLoss.alpha": _ANY,
    "SphereFaceLoss.margin": _whole(1, 10),
    "SubCenterArcFaceLoss.margin": _DEGREES,
    "TupletMarginLoss.margin": _DEGREES,
    "UniformHistogramMiner.num_bins": _whole(1, 200),  # with so many in each, some losses compare each with each
}
"""By the names of options, and of losses with one."""


def check_value(setting: str, name: str, option: str, value: Any, default: Any) -> None:
    """Passes if an option may have a value. One whose default is nothing may be nothing.

    Args:
        setting: where it was given, for the message: `loss_options.margin`.
        name: of what it is for: a loss, a miner or a part.
        option: its name. Those that are not in `VALUES` pass.
        value: as JSON has it.
        default: its default.

    Raises:
        SettingsError: with what to give.
    """
    rule = VALUES.get(f"{name}.{option}") or VALUES.get(option)
    if rule is None or (value is None and default is None) or rule.fits(value):
        return
    near = did_you_mean(value, rule.known) if isinstance(value, str) else ""
    raise SettingsError(f"{setting} = {shortened(repr(value))}{near}: give {rule.says}")
