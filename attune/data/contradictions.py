"""Single items that come with several labels: which one is right nobody can know, so none of their examples is used."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from attune.characters import shortened
from attune.data.shards import read_rows
from attune.schemas import Problem

REASON = "several_labels"

SHOWN = 5
"""Labels of an item that are named."""

CONTRADICTORY = "SELECT item FROM rows WHERE label != '' GROUP BY item HAVING count(DISTINCT label) > 1"
"""Keys of such items in a table `rows` with the columns of `labels_in`. An example without a label contradicts none."""


def labels_in(table: pa.Table) -> Iterator[tuple[str | None, str | None]]:
    """Key and label of each row of `attune.data.shards.read_rows` that is a single item, and twice None of the others."""
    columns = (table[name].to_pylist() for name in ("image_sha256", "label", "captions", "matches", "group"))
    for key, label, captions, matches, group in zip(*columns, strict=True):
        yield (key, label) if group and not (captions or matches) else (None, None)


def contradictions(parts: Sequence[Path], item: str) -> Iterator[Problem]:
    """A problem for each example that is set aside, those of an item one after the other.

    The rows are kept in a temporary file of SQLite's, so memory stays bounded however many there are.

    Args:
        parts: Parquet files of a dataset, in the order in which items are to be named.
        item: what one of its items is called, for the messages.
    """
    with closing(sqlite3.connect("")) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE rows (item TEXT, label TEXT, source TEXT)")
        for part in parts:
            table = read_rows([part])
            rows = zip(labels_in(table), table["source"].to_pylist(), strict=True)
            known = ((key, label, source) for (key, label), source in rows if key)
            database.executemany("INSERT INTO rows VALUES (?, ?, ?)", known)
        database.execute("CREATE INDEX of_item ON rows (item)")
        for (key,) in database.execute(f"{CONTRADICTORY} ORDER BY min(rowid)"):
            labels = database.execute(
                "SELECT label, source FROM rows WHERE item = ? AND label != '' GROUP BY label ORDER BY min(rowid) LIMIT ?",
                (key, SHOWN + 1),
            ).fetchall()
            named = ", ".join(f"{shortened(label, 40)!r} ({shortened(source, 80)})" for label, source in labels[:SHOWN])
            more = " and more" if len(labels) > SHOWN else ""
            advice = (
                f"the same {item} comes with several labels: {named}{more}. Which one is right cannot be known, so none of "
                "its examples is used. Keep those with the right label, and leave the others out"
            )
            for label, source in database.execute("SELECT label, source FROM rows WHERE item = ? ORDER BY rowid", (key,)):
                yield Problem(source=source, field="label", value=label[:100], reason=REASON, advice=advice)
