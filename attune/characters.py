"""Characters that are no part of a text but act on whatever shows it."""

import re

_ACTING = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069"
"""Control codes, halves of surrogate pairs, and overrides of the direction of writing.

Tab and line ends are text. So are the joiners, marks and tags that emoji and right-to-left scripts are spelt with.
"""

_CONTROLS = re.compile(f"[{_ACTING}]")
_SHOWN = re.compile(f"[\r{_ACTING}]")


def without_controls(text: str) -> str:
    """The text without its control characters."""
    return _CONTROLS.sub("", text)


def visible(text: str) -> str:
    r"""The text with its control characters written out, as `\x1b`: a terminal shows them and does nothing.

    A return to the start of the line is one of them here: it would let a text hide what comes before it.
    """
    return _SHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(text: str, length: int = 280) -> str:
    """The text, or its beginning and an ellipsis; `length` characters at most."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
