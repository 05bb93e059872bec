"""How a figure is written, in a terminal, on a page and in a model card alike."""

import math

MISSING = "–"
"""What stands for a figure that is not defined, or was not measured."""


def figure(value: float | None) -> str:
    """Three decimals; a whole number as it is."""
    if value is None or not math.isfinite(value):
        return MISSING
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Three decimals, and no smaller than that."""
    return "< 0.001" if value is not None and value < 0.001 else figure(value)
