"""Which columns of a table of pictures and texts, or of pairs of texts or of pictures, hold what, by their names."""

from typing import NamedTuple

IMAGE_COLUMNS = ("image", "file_name", "filepath", "image_path", "image_name", "filename", "path")
CAPTION_COLUMNS = ("captions", "caption", "text", "title", "caption_text", "comment")
FIRST_COLUMNS = (*IMAGE_COLUMNS, "image1", "image_1")
MATCH_COLUMNS = ("match", "matches", "match_path", "image2", "image_2")
EMBEDDING_COLUMNS = ("embedding", "embedding1", "embedding_1")
BELONGING_COLUMNS = ("embeddings", "embedding2", "embedding_2", *MATCH_COLUMNS)
QUERY_COLUMNS = ("query", "anchor", "question", "sentence1", "sentence_a", "text1")
DOCUMENT_COLUMNS = (
    "document",
    "documents",
    "positive",
    "answer",
    "answers",
    "response",
    "passage",
    "sentence2",
    "sentence_b",
    "text2",
    "text",
)
TEXT_COLUMNS = ("text", "sentence", *QUERY_COLUMNS)
SCORE_COLUMNS = ("score", "scores", "similarity_score")
NEGATIVE_COLUMNS = ("negative", "negatives", "hard_negative")
MARGIN_COLUMNS = ("margin", "margins")
LABEL_COLUMNS = ("label", "class", "category")

LONGEST = 200
"""Characters of a label or a tag; what is longer is a text and names nothing."""


class Columns(NamedTuple):
    """Where in a row to find what; -1 for what is not there. The item is a picture, or a text if `of_texts`.

    If `of_matches`, a picture that belongs to it stands in the caption's place; of embeddings, another one. A single item
    has no caption.
    """

    item: int
    caption: int
    group: int
    label: int
    tags: dict[str, int]
    of_texts: bool = False
    of_matches: bool = False
    score: int = -1
    negative: int = -1
    margin: int = -1

    def tags_in(self, cells: dict[int, str]) -> dict[str, str]:
        """The tags of a row, of its cells by column; empty ones are left out, and long ones: nobody asked for them."""
        return {name: cells[column] for name, column in self.tags.items() if 0 < len(cells.get(column, "")) <= LONGEST}


def find_columns(names: list[str], plain: list[str]) -> Columns | None:
    """What a table's columns hold: pictures and captions, or pictures or embeddings and matches, or queries and documents.

    Or else single items: pictures, embeddings or texts and labels, or one column of texts and nothing else.

    Args:
        names: of the columns.
        plain: the same, but empty for columns that can be no group, label or tag.

    Returns:
        Their places, or None if they hold none of these.
    """
    item, caption = _first(names, IMAGE_COLUMNS), _first(names, CAPTION_COLUMNS)
    other: tuple[str, ...] = (*IMAGE_COLUMNS, *CAPTION_COLUMNS)  # a second one of these tells nothing apart
    first, match = _first(names, FIRST_COLUMNS), _first(names, MATCH_COLUMNS)
    vector, near = _first(names, EMBEDDING_COLUMNS), _first(names, BELONGING_COLUMNS)
    query, document = _first(names, QUERY_COLUMNS), _first(names, DOCUMENT_COLUMNS)
    # Texts or pictures that are there with embeddings of them are what is meant.
    of_embeddings = max(min(first, match), min(item, caption), min(query, document)) < 0 <= min(vector, near)
    of_matches = caption < 0 <= min(first, match) or of_embeddings
    of_texts = item < 0 and not of_matches  # questions on pictures are no pairs of texts
    if of_embeddings:
        item, caption, other = vector, near, (*EMBEDDING_COLUMNS, *BELONGING_COLUMNS)
    elif of_matches:
        item, caption, other = first, match, (*FIRST_COLUMNS, *MATCH_COLUMNS)
    if of_texts:
        item, caption = query, document
        other = (*QUERY_COLUMNS, *DOCUMENT_COLUMNS)
    group, label = _first(plain, ("group",)), _first(plain, LABEL_COLUMNS)
    if item < 0 or caption < 0:
        there = (wanted for wanted in (FIRST_COLUMNS, EMBEDDING_COLUMNS, TEXT_COLUMNS) if _first(names, wanted) >= 0)
        other = next(there, ())
        item, caption, of_texts = _first(names, other), -1, other is TEXT_COLUMNS
        if item < 0 or (label < 0 and (len(names) > 1 or not of_texts)):
            return None
    known = (item, caption, group, label)
    more = tuple(_first(names, wanted) for wanted in (SCORE_COLUMNS, NEGATIVE_COLUMNS, MARGIN_COLUMNS))
    other = (*other, *SCORE_COLUMNS, *NEGATIVE_COLUMNS, *MARGIN_COLUMNS)
    tags = {
        name.strip(): number
        for number, name in enumerate(plain)
        if name.strip() and number not in known and name.strip().lower() not in other
    }
    return Columns(*known, tags, of_texts, of_matches, *more)


def _first(names: list[str], wanted: tuple[str, ...]) -> int:
    lower = [name.strip().lower() for name in names]
    return next((lower.index(name) for name in wanted if name in lower), -1)
