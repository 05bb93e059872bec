"""The libraries that models are of."""

from collections.abc import Mapping
from typing import Any, Literal

from attune.kinds import Tower

Library = Literal["mlp", "open_clip", "sentence_transformers", "timm"]

EMBEDS: dict[Library, tuple[Tower, ...]] = {
    "mlp": ("image",),
    "open_clip": ("image", "text"),
    "sentence_transformers": ("text",),
    "timm": ("image",),
}
"""What the models of each embed; an `mlp` takes embeddings in the place of pictures."""


def library_of(config: Mapping[str, Any]) -> Library:
    """The one that builds a model of this configuration; open_clip's own says nothing of it."""
    found: Library = config.get("library", "open_clip")
    return found
