"""Captions that speak of sides, and so are wrong of a mirrored picture."""

import re

import numpy as np

from attune.data.pairs import Pairs

_WORDS = (
    r"left\w*|right\w*|\w*clockwise"  # English
    r"|link(?:s|e|er|en|es|em)|recht(?:s|e|er|en|es|em)"  # German, Dutch
    r"|gauche|droite?"  # French
    r"|izquierd\w*|derech\w*|esquerd\w*|direit\w*|sinistr\w*|destr[ao]"  # Spanish, Portuguese, Italian
    r"|лев\w*|слева|прав\w*|справа"  # Russian
)
_SIDES = re.compile(rf"\b(?:{_WORDS})\b|[左右]|बा[एयँ]|दा[एयँ]", re.IGNORECASE)


def speaks_of_sides(text: str) -> bool:
    """Whether a text has a word for left or right, or one that begins like it, in one of ten languages.

    Example:
        True of `"a dog left of a tree"`, False of `"a bright lamp"`.
    """
    return _SIDES.search(text) is not None


def can_be_mirrored(pairs: Pairs) -> np.ndarray:
    """Of each picture whether none of its captions and negatives speaks of sides: bool (pictures,)."""
    free = np.ones(len(pairs), dtype=bool)
    if pairs.kind.has_texts:
        for column in (pairs.captions, pairs.negatives):
            for row, texts in enumerate(column):
                free[row] &= not any(map(speaks_of_sides, texts))
    return free
