"""The names of timm's models: `ARCHITECTURE.TAG`, the tag saying which weights."""

import difflib
from pathlib import Path

import timm

from attune.errors import ModelError

PREFIX = "timm/"
"""Before the names of timm's models, here as on the Hugging Face hub."""


def check_timm_name(name: str, weights: str, file: Path | None, hint: str = "") -> None:
    """Passes if timm has such a model and such weights; nothing is loaded.

    Args:
        name: what follows `timm/`.
        weights: what follows `#`: a checkpoint, `scratch`, or nothing.
        file: the checkpoint, if there is one of that name.
        hint: what to add to a message where no file is found.

    Raises:
        ModelError: with the nearest names, or the tags that the architecture has.
    """
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        meant = f" Did you mean {' or '.join(PREFIX + one for one in near)}?" if near else ""
        raise ModelError(f"timm has no model named {name[:200]!r}.{meant} `timm.list_pretrained()` lists those with weights")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    there = ", ".join(tags) or "none, so only #scratch or #path/to/checkpoint"
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=1)
        meant = f" Did you mean {PREFIX}{architecture}.{near[0]}?" if near else ""
        raise ModelError(f"timm's {architecture} has no weights {tag[:200]!r}.{meant} There are: {there}")
    if not weights and not tag:
        raise ModelError(f"'{PREFIX}{name}' does not say which weights. Write {PREFIX}{name}.TAG with one of: {there}")
    if weights not in ("", "scratch") and not (file and file.is_file()):
        raise ModelError(f"'{PREFIX}{name}#{weights[:200]}': no such file exists. Name a checkpoint, or `scratch`{hint}")
