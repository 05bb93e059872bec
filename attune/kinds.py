"""What an example's captions belong to, a picture or a text, and what the one and the other are called everywhere.

With pictures, texts that describe them are looked for. With texts, an item is a query and its captions are its documents,
or a sentence and its paraphrases: the same figures, by names of their own.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple


class Kind(NamedTuple):
    """What a dataset's items are, in words.

    Attributes:
        name: `image` or `text`.
        item: one of them.
        items: several.
        captions: what belongs to them.
        directions: of retrieval, as metrics are named: from captions to items, and from items to captions.
        asked: the direction that people ask in, whose examples are shown first.
        tower: of the model, that embeds the items.
    """

    name: Literal["image", "text"]
    item: str
    items: str
    captions: str
    directions: tuple[str, str]
    asked: str
    tower: Literal["image", "text"]

    @property
    def arrows(self) -> tuple[str, str]:
        """The directions as log lines have them: `text->image`."""
        first, second = (direction.replace("_to_", "->") for direction in self.directions)
        return first, second

    @property
    def caption(self) -> str:
        """One of the captions."""
        return self.captions.removesuffix("s")

    @property
    def words(self) -> tuple[str, str]:
        """The directions in words: `text to image`."""
        first, second = (direction.replace("_", " ") for direction in self.directions)
        return first, second


IMAGE = Kind("image", "picture", "pictures", "captions", ("text_to_image", "image_to_text"), "text_to_image", "image")
TEXT = Kind("text", "query", "queries", "documents", ("document_to_query", "query_to_document"), "query_to_document", "text")


def kind_of(texts: int) -> Kind:
    """The kind of data that holds so many items that are texts: it holds one kind alone."""
    return TEXT if texts else IMAGE


def kind_of_names(names: Iterable[str]) -> Kind:
    """The kind whose directions, or metrics, have these names."""
    return TEXT if any(name.startswith(TEXT.directions) for name in names) else IMAGE
