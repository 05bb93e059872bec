"""Which columns of a table of pictures and texts hold what, by their names."""

from typing import NamedTuple

IMAGE_COLUMNS = ("image", "file_name", "filepath", "image_path", "image_name", "filename", "path")
CAPTION_COLUMNS = ("captions", "caption", "text", "title", "caption_text", "comment")
LABEL_COLUMNS = ("label", "class", "category")

LONGEST = 200
"""Characters of a label or a tag; what is longer is a text and names nothing."""


class Columns(NamedTuple):
    """Where in a row to find what; -1 for what is not there."""

    image: int
    caption: int
    group: int
    label: int
    tags: dict[str, int]

    def tags_in(self, cells: dict[int, str]) -> dict[str, str]:
        """The tags of a row, of its cells by column; empty ones are left out, and long ones: nobody asked for them."""
        return {name: cells[column] for name, column in self.tags.items() if 0 < len(cells.get(column, "")) <= LONGEST}


def find_columns(names: list[str], plain: list[str]) -> Columns | None:
    """What the columns of a table hold, or None if there is no image or no caption column.

    Args:
        names: of the columns.
        plain: the same, but empty for columns that can be no group, label or tag.
    """
    image, caption = _first(names, IMAGE_COLUMNS), _first(names, CAPTION_COLUMNS)
    if image < 0 or caption < 0:
        return None
    group, label = _first(plain, ("group",)), _first(plain, LABEL_COLUMNS)
    known = (image, caption, group, label)
    other = (*IMAGE_COLUMNS, *CAPTION_COLUMNS)  # a second one of these tells nothing apart
    tags = {
        name.strip(): number
        for number, name in enumerate(plain)
        if name.strip() and number not in known and name.strip().lower() not in other
    }
    return Columns(*known, tags)


def _first(names: list[str], wanted: tuple[str, ...]) -> int:
    lower = [name.strip().lower() for name in names]
    return next((lower.index(name) for name in wanted if name in lower), -1)
