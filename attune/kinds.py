"""What an example's captions belong to, a picture, a text or an embedding, and what each is called everywhere.

With pictures, texts that describe them are looked for. With texts, an item is a query and its captions are its documents,
or a sentence and its paraphrases; in pairs of pictures its captions are other pictures, of the same thing: the same figures,
by names of their own. Embeddings that another model made are pairs as pictures are. Single pictures, texts or embeddings
have nothing that belongs to them: those of one label look for each other.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Tower = Literal["image", "text"]
"""A part of a model that embeds."""

TOWERS: tuple[Tower, ...] = ("image", "text")


class Kind(NamedTuple):
    """What a dataset's items are, in words.

    Attributes:
        item: one of them.
        items: several.
        caption: one of what belongs to them; empty if nothing does.
        captions: several.
        directions: of retrieval, as metrics are named: from captions to items, and from items to captions; or the one among
            single items.
        asked: the direction that people ask in, whose examples are shown first.
        tower: of the model, that embeds the items.
        caption_tower: that embeds the captions; of single items the same.
        data: of this kind, in words.
    """

    item: str
    items: str
    caption: str
    captions: str
    directions: tuple[str, ...]
    asked: str
    tower: Tower
    caption_tower: Tower
    data: str

    @property
    def of_texts(self) -> bool:
        """Whether its items are texts."""
        return self.tower == "text"

    @property
    def of_embeddings(self) -> bool:
        """Whether its items are embeddings that another model made, in the place of pictures."""
        return self.item == "embedding"

    @property
    def is_single(self) -> bool:
        """Whether nothing belongs to its items, so that they have labels at most."""
        return not self.captions

    @property
    def arrows(self) -> tuple[str, ...]:
        """The directions as log lines have them: `text->image`."""
        return tuple(direction.replace("_to_", "->") for direction in self.directions)

    @property
    def words(self) -> tuple[str, ...]:
        """The directions in words: `text to image`."""
        return tuple(direction.replace("_", " ") for direction in self.directions)

    def counted(self, items: int, captions: int, held_out: bool = False) -> str:
        """So many items and what belongs to them, in words: `20 pictures with 100 captions`."""
        of_items = f"{items} {'held-out ' * held_out}{self.items}"
        return of_items if self.is_single else f"{of_items} with {captions} {self.captions}"

    @property
    def has_matches(self) -> bool:
        """Whether what belongs to items is of their own kind, and known by its key: pictures, or embeddings."""
        return self.caption_tower == "image" and not self.is_single

    def goes_with(self, other: "Kind") -> bool:
        """Whether one tower embeds the items of both, so that it may learn from the one and be measured on the other."""
        return (self.tower, self.of_embeddings) == (other.tower, other.of_embeddings)

    @property
    def has_texts(self) -> bool:
        """Whether what belongs to items are texts."""
        return self.caption_tower == "text" and not self.is_single

    @property
    def left_out(self) -> Tower | None:
        """The tower that embeds nothing, and stays as it is; None if both have something to embed."""
        return next((tower for tower in TOWERS if tower not in (self.tower, self.caption_tower)), None)


IMAGE = Kind(
    "picture",
    "pictures",
    "caption",
    "captions",
    ("text_to_image", "image_to_text"),
    "text_to_image",
    "image",
    "text",
    "pictures with captions",
)
TEXT = Kind(
    "query",
    "queries",
    "document",
    "documents",
    ("document_to_query", "query_to_document"),
    "query_to_document",
    "text",
    "text",
    "pairs of texts",
)
MATCH = Kind(
    "picture",
    "pictures",
    "match",
    "matches",
    ("match_to_picture", "picture_to_match"),
    "picture_to_match",
    "image",
    "image",
    "pairs of pictures",
)
EMBEDDING = MATCH._replace(
    item="embedding",
    items="embeddings",
    directions=("match_to_embedding", "embedding_to_match"),
    asked="embedding_to_match",
    data="pairs of embeddings",
)
SINGLE_IMAGE = Kind(
    "picture", "pictures", "", "", ("picture_to_picture",), "picture_to_picture", "image", "image", "single pictures"
)
SINGLE_TEXT = Kind("text", "texts", "", "", ("text_to_text",), "text_to_text", "text", "text", "single texts")
SINGLE_EMBEDDING = SINGLE_IMAGE._replace(
    item="embedding",
    items="embeddings",
    directions=("embedding_to_embedding",),
    asked="embedding_to_embedding",
    data="single embeddings",
)
KINDS = (IMAGE, TEXT, MATCH, EMBEDDING, SINGLE_IMAGE, SINGLE_TEXT, SINGLE_EMBEDDING)
ALL_DIRECTIONS = tuple(direction for kind in KINDS for direction in kind.directions)
"""Of all kinds."""


def kind_of(images: int, texts: int, captions: int, matches: int, dimension: int = 0) -> Kind:
    """The kind of data with so many pictures and texts as items, captions and matches: it holds one kind alone.

    Embeddings count as pictures; `dimension` is the length of them, 0 of all else.
    """
    if (images or texts) and not (captions or matches):
        return SINGLE_EMBEDDING if dimension else SINGLE_TEXT if texts else SINGLE_IMAGE
    if dimension:
        return EMBEDDING
    return TEXT if texts else MATCH if matches else IMAGE


def kind_of_names(names: Iterable[str]) -> Kind:
    """The kind whose directions, or metrics, have these names."""
    names = list(names)
    return next((kind for kind in KINDS if any(name.startswith(kind.directions) for name in names)), IMAGE)
