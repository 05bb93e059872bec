"""What somebody may have meant by a model name that there is not."""

import difflib
import re
from collections.abc import Iterable

import open_clip
import timm

from attune.choices import LONGEST
from attune.models.catalog import ALIASES, IMAGE_MODELS, TIMM, hub_models

SHOWN = 3
SHORTEST = 3
"""Characters that a name needs for longer ones to be meant by it."""


def question(near: list[str]) -> str:
    """Whether one of these was meant; nothing if there are none."""
    return f" Did you mean {' or '.join(near)}?" if near else ""


def nearest(name: str, known: Iterable[tuple[str, str]]) -> list[str]:
    """At most `SHOWN` names: equal but for case and punctuation, else those that begin so or hold it, else those alike.

    Args:
        name: that was given.
        known: each name with what it may be called, the more usual first.
    """
    wanted = _plain(name)
    if not wanted or len(name) > LONGEST:
        return []
    called: dict[str, list[str]] = {}
    for full, short in known:
        called.setdefault(_plain(short), []).append(full)
    longer = [one for one in called if wanted in one and len(wanted) >= SHORTEST]
    longer.sort(key=lambda one: not one.startswith(wanted))
    near = [wanted] if wanted in called else longer or difflib.get_close_matches(wanted, called, n=SHOWN)
    return list(dict.fromkeys(full for one in near for full in called[one]))[:SHOWN]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def model_names() -> Iterable[tuple[str, str]]:
    """All models that can be named without fetching anything, for `nearest`: some may be called in several ways."""
    for name in (*ALIASES, "starter", "mlp", *open_clip.list_models()):
        yield name, name
    for name in hub_models():
        yield name, name
        yield name, name.rpartition("/")[2]
    for name in IMAGE_MODELS:
        yield TIMM + name, name.partition(".")[0]
        yield TIMM + name, name
    listed = {name.partition(".")[0] for name in IMAGE_MODELS}
    for name in timm.list_models():
        if name not in listed:
            yield TIMM + name, name
