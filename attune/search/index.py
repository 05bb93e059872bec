"""A searchable index on disk: a LanceDB table of keys, texts and vectors, all made by one model.

The model's fingerprint is part of the table's schema, so the two cannot come apart. The table is opened anew for each
call (a millisecond): several processes may use one index, and one that was deleted from disk is simply empty.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from attune.errors import SearchError, SettingsError
from attune.files import locked
from attune.home import home
from attune.names import check_name
from attune.schemas import SearchDocument, SearchMatch

TABLE = "documents"
MAX_LIMIT = 1000
WRITES_BETWEEN_OPTIMIZE = 100
"""Each write adds a file and a version; searching slows down as they pile up."""

KEEP_VERSIONS = timedelta(minutes=5)
"""Longer than any search takes: another process may be reading the version before."""


@dataclass(frozen=True)
class _Contents:
    """An open table and what its schema says of its vectors."""

    table: Any
    model: str
    dimension: int


class Index:
    """One index. Threads may share it, and processes may open the same one.

    Attributes:
        path: its folder.
    """

    def __init__(self, name: str) -> None:
        try:
            self.path: Path = home() / "index" / check_name(name)
        except ValueError as error:
            raise SettingsError(f"index = {name!r} {error}") from error
        self._writes = 0

    def upsert(self, documents: Sequence[SearchDocument]) -> None:
        """Stores embedded documents, all or none; one with a key that is there already replaces it.

        Of documents with the same key in one call the last is stored.

        Raises:
            SearchError: if a document has no key or no embedding, or another model made it.
        """
        if not documents:
            return
        keyless = [str(number) for number, document in enumerate(documents, start=1) if not document.key]
        if keyless:
            raise SearchError(
                f"Nothing was indexed: {len(keyless)} of {len(documents)} documents have no key (document "
                f"{', '.join(keyless[:10])}). Give each a key that is unique in the index"
            )
        model, vectors = _vectors_of(documents)
        rows = {document.key: row for row, document in enumerate(documents)}  # LanceDB would store both of two equal keys
        chosen = list(rows.values())
        data = {
            "key": [documents[row].key for row in chosen],
            "text": [documents[row].text for row in chosen],
            "vector": pa.FixedSizeListArray.from_arrays(vectors[chosen].ravel(), vectors.shape[1]),
        }
        with self._writing():
            contents = self._open()
            if contents is None or contents.table.count_rows() == 0:
                contents = self._create(model, vectors.shape[1])
            self._check_model(contents, model, vectors.shape[1])
            merge = contents.table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.table(data, schema=contents.table.schema))
            self._writes += 1
            if self._writes % WRITES_BETWEEN_OPTIMIZE == 0:
                contents.table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def search(self, queries: Sequence[SearchDocument], limit: int) -> list[list[SearchMatch]]:
        """The `limit` nearest documents of each embedded query by cosine similarity, best first; exact.

        Raises:
            SearchError: if the index is empty, a query has no embedding, or another model made the index.
        """
        if not queries:
            return []
        model, vectors = _vectors_of(queries)
        contents = self._open()
        if contents is None or contents.table.count_rows() == 0:
            raise SearchError(f"The index {self.path.name!r} is empty. Send documents to /index first")
        self._check_model(contents, model, vectors.shape[1])
        # One call for all queries reads the table once. `_distance` is selected or LanceDB warns of its absence.
        search = contents.table.search(list(vectors)).distance_type("cosine").bypass_vector_index()
        matches: list[list[SearchMatch]] = [[] for _ in queries]
        for found in search.select(["key", "text", "_distance"]).limit(limit).to_list():
            # `query_index` is there only if there are several queries.
            score = min(1.0, max(-1.0, 1.0 - found["_distance"]))
            matches[found.get("query_index", 0)].append(SearchMatch(key=found["key"], text=found["text"], score=score))
        return [sorted(hits, key=lambda hit: -hit.score) for hits in matches]

    def delete(self, keys: Sequence[str]) -> int:
        """Removes documents; a key that is not there is passed over. Gives the number removed."""
        contents = self._open()
        if contents is None or not keys:
            return 0
        quoted = ", ".join("'" + key.replace("'", "''") + "'" for key in keys)
        with self._writing():
            return int(contents.table.delete(f"key IN ({quoted})").num_deleted_rows)

    def count(self) -> int:
        """Documents in the index."""
        contents = self._open()
        return contents.table.count_rows() if contents else 0

    def optimize(self) -> None:
        """Merges the files of many small writes and drops old versions."""
        contents = self._open()
        if contents:
            with self._writing():
                contents.table.optimize(cleanup_older_than=KEEP_VERSIONS)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Waits until no other thread or process writes: two that create the table would each begin an empty one."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock"):
            yield

    def _open(self) -> _Contents | None:
        """The table as it is now; None if there is none."""
        if not (self.path / f"{TABLE}.lance").is_dir():
            return None
        table = lancedb.connect(self.path).open_table(TABLE)
        return _Contents(table, table.schema.metadata[b"model"].decode(), table.schema.field("vector").type.list_size)

    def _create(self, model: str, dimension: int) -> _Contents:
        """A new, empty table for this model's vectors; an empty one of another model makes room."""
        vector = pa.list_(pa.float32(), dimension)
        fields = [
            pa.field("key", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("vector", vector),
        ]
        schema = pa.schema(fields, metadata={"model": model})
        table = lancedb.connect(self.path).create_table(TABLE, schema=schema, mode="overwrite")
        return _Contents(table, model, dimension)

    def _check_model(self, contents: _Contents, model: str, dimension: int) -> None:
        if (contents.model, contents.dimension) == (model, dimension):
            return
        raise SearchError(
            f"The index {self.path.name!r} was built with another model ({contents.model[:12]}, {contents.dimension} "
            f"dimensions) than the Encoder's ({model[:12]}, {dimension} dimensions); their vectors cannot be compared. "
            f"Index the documents again under a new index name (ATTUNE_INDEX), or delete {self.path} and index again"
        )


def check_limit(value: Any) -> int:
    """The number of matches asked for; Jina turns integers in parameters into floats.

    Raises:
        SearchError: if it is no whole number from 1 to `MAX_LIMIT`.
    """
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or not 1 <= value <= MAX_LIMIT:
        raise SearchError(f"limit = {value!r}: give a whole number from 1 to {MAX_LIMIT}")
    return int(value)


def _vectors_of(documents: Sequence[SearchDocument]) -> tuple[str, np.ndarray]:
    """The one model that embedded the documents, and their embeddings: float32 (documents, dim)."""
    made_by = {(document.model, len(document.embedding)) for document in documents}
    if len(made_by) > 1 or not all(document.embedding for document in documents):
        raise SearchError(
            "The documents were not all embedded by one model. Send them through a Flow that has one Encoder before "
            "the Indexer, such as flows/search.yml"
        )
    return documents[0].model, np.asarray([document.embedding for document in documents], dtype=np.float32)
