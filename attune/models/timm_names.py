"""The names of timm's models: `ARCHITECTURE.TAG`, the tag saying which weights."""

from pathlib import Path

import timm

from attune.errors import ModelError
from attune.models.catalog import TIMM
from attune.models.suggestions import nearest, question


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
        near = nearest(architecture, ((TIMM + one, one) for one in known))
        raise ModelError(
            f"timm has no model named {name[:200]!r}.{question(near)} `timm.list_pretrained()` lists those with weights"
        )
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    there = ", ".join(tags) or "none, so only #scratch or #path/to/checkpoint"
    if tag and tag not in tags:
        meant = question(nearest(tag, ((f"{TIMM}{architecture}.{one}", one) for one in tags)))
        raise ModelError(f"timm's {architecture} has no weights {tag[:200]!r}.{meant} There are: {there}")
    if not weights and not tag:
        raise ModelError(f"'{TIMM}{name}' does not say which weights. Write {TIMM}{name}.TAG with one of: {there}")
    if weights not in ("", "scratch") and not (file and file.is_file()):
        raise ModelError(f"'{TIMM}{name}#{weights[:200]}': no such file exists. Name a checkpoint, or `scratch`{hint}")
