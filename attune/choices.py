"""Values out of a list of known ones, and what to say of others."""

import difflib
from collections.abc import Iterable

LONGEST = 200
"""Characters of a value that is compared with known ones: it takes the more time the longer it is."""


def one_of(value: str, known: tuple[str, ...]) -> str:
    """The value itself, if it is a known one.

    Raises:
        ValueError: if it is not, with the known ones and the nearest.
    """
    if value not in known:
        raise ValueError(f"is not known{did_you_mean(value, known)}. Use one of: {', '.join(known)}")
    return value


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The nearest known value as a remark in brackets, or nothing if none is near."""
    if len(value) > LONGEST:
        return ""
    near = difflib.get_close_matches(value, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
