"""How a figure is written, in a terminal, on a page and in a model card alike."""

import math

CHOSEN_BY = {"mean_recall": "recall", "spearman": "spearman", "map@r": "MAP@R"}
"""Figures that checkpoints are chosen by, of which data has one, and what they are called in short: recall, correlation
where captions have scores, and of single items mean average precision among as many answers as there are right ones."""


def chosen_by(single: bool, graded: bool) -> str:
    """Which of `CHOSEN_BY` data has.

    Args:
        single: whether nothing belongs to its items, see `attune.kinds.Kind.is_single`.
        graded: whether captions have scores.
    """
    return "spearman" if graded else "map@r" if single else "mean_recall"


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


def say_size(count: int) -> str:
    """A number of bytes for people, such as `1.9 GB`."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{-(-count // 1000)} kB" if count else "0 bytes"
