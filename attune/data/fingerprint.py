"""What a dataset holds, in one number: SHA-256 over its rows, whatever order and batches they came in."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from attune.data.shards import CONTENT, read_rows

CACHE_KIB = 32 * 1024


class Summary(NamedTuple):
    """A dataset's fingerprint and counts; what came twice counts once. Items are pictures, or texts in their place."""

    fingerprint: str
    items: int
    captions: int
    groups: int


def summarize(parts: Sequence[Path]) -> Summary:
    """Fingerprint and counts of the rows of these Parquet files.

    The rows are sorted in a temporary file of SQLite's, so memory stays bounded however many there are.
    """
    digest, separator = hashlib.sha256(), ""
    items = captions = 0
    with closing(sqlite3.connect("")) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("CREATE TABLE rows (content TEXT, part_of TEXT)")
        for part in parts:
            database.executemany("INSERT INTO rows VALUES (?, ?)", _rows(part))
        [(groups,)] = database.execute("SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY part_of)")
        ordered = database.execute("SELECT content FROM rows ORDER BY content")
        distinct = (row for (row,), _ in groupby(ordered))
        for _, rows in groupby(distinct, key=_item):  # a row begins with its item's key: those of one stand together
            texts = set()
            for row in rows:
                digest.update(f"{separator}{row}".encode())
                separator = "\n"
                texts.update(json.loads(row)[1])
            items += 1
            captions += len(texts)
    return Summary(digest.hexdigest(), items, captions, groups)


def _item(row: str) -> str:
    return row[: len('["') + 64]


def _rows(part: Path) -> Iterator[tuple[str, str]]:
    """Each row as text, and its group. Where there is no label and no tag, neither counts."""
    table = read_rows([part])
    for image, captions, group, label, tags in zip(*(table[name].to_pylist() for name in CONTENT), strict=True):
        more = [label, tags] if label or tags != "{}" else []
        yield json.dumps([image, captions, group, *more]), group
