"""What a dataset holds, in one number: SHA-256 over its rows, whatever order and batches they came in."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from attune.data.contradictions import CONTRADICTORY, labels_in
from attune.data.shards import CONTENT, LISTS, read_rows

CACHE_KIB = 32 * 1024
MATCHES = CONTENT.index("matches")
"""Place of the keys of matches in a row of pairs of pictures, which has no captions. It is the last."""


class Summary(NamedTuple):
    """A dataset's fingerprint and counts; what came twice counts once. Items are pictures, or texts in their place.

    `contradictory` counts the examples of single items with several labels, and all else is without them. `pictures` counts
    items and matches together, or items and those that are contradictory, where there are any; elsewhere it is 0.
    """

    fingerprint: str
    items: int
    captions: int
    matches: int
    groups: int
    pictures: int
    contradictory: int


def summarize(parts: Sequence[Path]) -> Summary:
    """Fingerprint and counts of the rows of these Parquet files.

    The rows are sorted in a temporary file of SQLite's, so memory stays bounded however many there are.
    """
    digest, separator = hashlib.sha256(), ""
    items = captions = matches = pictures = contradictory = 0
    with closing(sqlite3.connect("")) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("CREATE TABLE rows (content TEXT, part_of TEXT, item TEXT, label TEXT)")
        database.execute("CREATE TABLE pictures (picture TEXT)")
        for part in parts:
            table = read_rows([part])
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", _rows(table))
            if table["matches"].null_count < len(table):
                database.executemany("INSERT INTO pictures VALUES (?)", zip(table["image_sha256"].to_pylist()))
        [(aside,)] = database.execute(f"SELECT count(*) FROM ({CONTRADICTORY})")
        if aside:
            contradictory = database.execute(f"DELETE FROM rows WHERE item IN ({CONTRADICTORY})").rowcount
        [(groups,)] = database.execute("SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY part_of)")
        ordered = database.execute("SELECT content FROM rows ORDER BY content")
        distinct = (row for (row,), _ in groupby(ordered))
        for _, rows in groupby(distinct, key=_item):  # a row begins with its item's key: those of one stand together
            texts, keys = set[str](), set[str]()
            for row in rows:
                digest.update(f"{separator}{row}".encode())
                separator = "\n"
                content = json.loads(row)
                texts.update(content[1])
                keys.update(*([] if content[1] else content[MATCHES:]))  # a single item's row ends before
            items += 1
            captions += len(texts)
            matches += len(keys)
        if matches:
            [(pictures,)] = database.execute("SELECT count(DISTINCT picture) FROM pictures")
        elif aside:
            pictures = items + aside
    return Summary(digest.hexdigest(), items, captions, matches, groups, pictures, contradictory)


def _item(row: str) -> str:
    return row[: len('["') + 64]


def _rows(table: pa.Table) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Each item's row as text, and its group; of a single item its key and label as well.

    What there is none of, such as labels and tags, or scores, does not count.
    """
    columns = (table[name].to_pylist() for name in CONTENT)
    for (image, captions, group, label, tags, matches, *lists), known in zip(
        zip(*columns, strict=True), labels_in(table), strict=True
    ):
        if matches:
            yield json.dumps([image, [], group, label, tags, matches]), group, *known
        elif group:  # not a match only
            more = [label, tags] if label or tags != "{}" else []
            if given := {name: values for name, values in zip(LISTS, lists, strict=True) if values}:
                more = [*more, given]
            yield json.dumps([image, captions or [], group, *more]), group, *known
