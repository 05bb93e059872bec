"""What a CSV file says of each picture, or query, however many rows it has and in whatever order they are."""

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

from attune.data.cells import number_of
from attune.data.columns import Columns, find_columns
from attune.errors import DataError

LONGEST_CELL = 2**20
"""Characters of a cell that is read, far more than of any text that is used: what is longer is reported with its line."""

LOOKED_AT = 100
"""Rows by which a file without a header is known to hold pairs of texts or of pictures."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class Row(NamedTuple):
    """A row of a CSV; its item is the path of a picture, or a text, and its caption a text, the path of a match, or None."""

    item: str
    line: int
    caption: str | None
    group: str
    label: str
    tags: dict[str, str]
    of_texts: bool
    of_matches: bool
    score: float | None
    negative: str
    margin: float | None


@dataclass(slots=True)
class Said:
    """What the rows of a CSV say of one item, and the line of the first. The first row counts that says anything."""

    item: str
    line: int
    of_texts: bool
    of_matches: bool
    captions: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    group: str = ""
    label: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """What one more row says."""
        if row.caption is not None:
            self.captions.append(row.caption)
        if row.score is not None:
            self.scores.append(row.score)
        if row.negative:
            self.negatives.append(row.negative)
            self.margins += [] if row.margin is None else [row.margin]
        self.group = self.group or row.group
        self.label = self.label or row.label
        self.tags = row.tags | self.tags


def read_said(path: Path) -> Iterator[Said]:
    """What a CSV file says of each picture or query, in the order of their first rows; of a single one under each label.

    Without a header the image column is the one whose values look like image files; two columns of these are pictures and
    their matches, two columns of texts queries and their documents.

    Raises:
        DataError: if it is no CSV file in UTF-8, is empty, or has no columns that can be used.
    """
    with _by_item(path) as database:
        ordered = database.execute("SELECT rows, min(line) OVER (PARTITION BY item) AS first FROM runs ORDER BY first, line")
        for _, runs in groupby(ordered, key=lambda run: run[1]):
            for own in _by_label([Row(*values) for run, _ in runs for values in json.loads(run)]):
                said = Said(own[0].item, own[0].line, own[0].of_texts, own[0].of_matches)
                for row in own:
                    said.add(row)
                yield said


def count_items(path: Path) -> int:
    """How many examples there are in a CSV file.

    Raises:
        DataError: as `read_said`.
    """
    return sum(1 for _ in read_said(path))


def _by_label(rows: list[Row]) -> list[list[Row]]:
    """The rows of one item, apart by label if it is single: labels are all that is said of it, and all are to be seen."""
    first = next((row.label for row in rows if row.label), "")
    if rows[0].caption is not None:
        return [rows]
    known: dict[str, list[Row]] = {}
    for row in rows:
        known.setdefault(row.label or first, []).append(row)
    return list(known.values())


@contextmanager
def _by_item(path: Path) -> Iterator[sqlite3.Connection]:
    """The rows in a temporary file of SQLite's, which can bring together those of an item with little memory.

    The table `runs` has successive rows of one item, as JSON, and the line of the first.
    """
    with closing(sqlite3.connect("")) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE runs (item TEXT, line INTEGER, rows TEXT)")
        runs = (list(rows) for _, rows in groupby(_read_rows(path), key=lambda row: row.item))
        database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?)", ((run[0].item, run[0].line, json.dumps(run)) for run in runs)
        )
        yield database


def _read_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # of the whole process; it has no other way
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            sample = file.read(4096)
            file.seek(0)
            delimiter = "\t" if sample.count("\t") > sample.count(",") else ","
            reader = csv.reader(file, delimiter=delimiter)
            rows: Iterator[tuple[int, list[str]]] = (
                (reader.line_num, row) for row in reader if any(cell.strip() for cell in row)
            )
            first = next(rows, None)
            if first is None:
                raise DataError(f"{str(path)!r} is empty. Give lines `image,caption`")
            columns, width = find_columns(first[1], first[1]), len(first[1])
            if columns is None:
                some = [first, *islice(rows, LOOKED_AT)]
                columns = _columns_by_content(path, [row for _, row in some])
                rows, width = chain(some, rows), width if columns.item else 2
            for line, row in rows:
                yield _row(line, row, columns, width, delimiter)
    except csv.Error as error:
        raise DataError(
            f"{str(path)!r} cannot be read at line {reader.line_num} ({error}). Look for a quote that is never closed, "
            f"or a cell of more than {LONGEST_CELL:,} characters"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not a CSV file in UTF-8 ({error}). Save it as CSV in UTF-8") from error


def _row(line: int, row: list[str], columns: Columns, width: int, delimiter: str) -> Row:
    # A caption with commas and no quotes, as in Kaggle's Flickr8k, takes the cells that are too many.
    wide = columns.item if columns.caption < 0 else columns.caption
    end = wide + 1 + max(0, len(row) - width)
    row = [*row[:wide], delimiter.join(row[wide:end]), *row[end:]]
    cells = dict(enumerate(cell.strip() for cell in row))
    item, group, label = (cells.get(column, "") for column in (columns.item, columns.group, columns.label))
    caption = cells.get(columns.caption, "") if columns.caption >= 0 else None
    numbers = (number_of(cells.get(column, "")) if column >= 0 else None for column in (columns.score, columns.margin))
    score, margin = numbers
    negative, kinds = cells.get(columns.negative, ""), (columns.of_texts, columns.of_matches)
    return Row(item, line, caption, group, label, columns.tags_in(cells), *kinds, score, negative, margin)


def _columns_by_content(path: Path, rows: list[list[str]]) -> Columns:
    row = rows[0]
    if len(row) == 2 and _are_texts(rows):
        return Columns(0, 1, -1, -1, {}, of_texts=True)
    image = [index for index, cell in enumerate(row) if _is_path(cell)]
    if len(row) < 2 or not image:
        raise DataError(
            f"The first line of {str(path)!r} is {','.join(row)[:100]!r}: neither a header `image,caption` nor a row with "
            f"an image path ({', '.join(IMAGE_SUFFIXES)}). Add the header, `query,document` for pairs of texts, "
            "`image,match` for pairs of pictures, `image,label` or `text,label` for single ones, or give two columns"
        )
    if all(len(row) == 2 and all(map(_is_path, row)) for row in rows):
        return Columns(0, 1, -1, -1, {}, of_matches=True)
    return Columns(image[0], 1 if image[0] == 0 else 0, -1, -1, {})


def _is_path(cell: str) -> bool:
    """Whether a cell looks like the path of a picture."""
    return cell.strip().lower().endswith(IMAGE_SUFFIXES)


def _are_texts(rows: list[list[str]]) -> bool:
    """Whether none of these cells could name a picture, and most rows, with the first, have one of several words.

    A first row of single words looks like a header of unknown names.
    """
    cells = [[cell.strip().lower() for cell in row] for row in rows]
    if any(_is_path(cell) or cell.startswith(("http://", "https://")) for row in cells for cell in row):
        return False
    of_words = [any(len(cell.split()) > 1 for cell in row) for row in cells]
    return of_words[0] and 2 * sum(of_words) > len(rows)
