"""A model as its library loads it and saves it."""

from typing import Any, NamedTuple


class Loaded(NamedTuple):
    """A model and what belongs to it.

    Attributes:
        model: on the CPU.
        tokenizer: see `attune.models.tokens`; None without a text tower.
        config: builds the same again.
        preprocess: how pictures are prepared; empty without an image tower.
        matryoshka_dims: lengths at which the first numbers of its embeddings were trained to be embeddings of their own.
    """

    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]
    matryoshka_dims: tuple[int, ...] = ()
