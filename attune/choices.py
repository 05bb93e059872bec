"""Values out of a list of known ones, and what to say of others."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from attune.errors import SettingsError

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


def check_option(setting: str, name: str, option: str, known: Mapping[str, Any]) -> None:
    """Passes if what is named takes an option.

    Args:
        setting: where the option was given: `loss_options`.
        name: of what it is for.
        option: its name.
        known: the options that there are, with their defaults.

    Raises:
        SettingsError: with the options there are, and the nearest.
    """
    if option not in known:
        there = ", ".join(f"{one} = {default}" for one, default in known.items()) or "none"
        raise SettingsError(f"{setting}: {name} takes no {option!r}{did_you_mean(option, known)}. Its options are: {there}")


def did_you_mean(value: str, known: Iterable[str], most: int = 1) -> str:
    """The nearest known values, at most so many, as a remark in brackets, or nothing if none is near."""
    if len(value) > LONGEST:
        return ""
    near = difflib.get_close_matches(value, list(known), n=most)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
