"""The Indexer: stores embedded documents on disk and finds the nearest; the work is `attune.search.index`."""

import asyncio
import os
from typing import Any

from docarray import DocList
from jina import requests
from prometheus_client import Counter, Histogram

from attune.schemas import SearchDocument, SearchMatch
from attune.search.index import Index, check_limit
from executors.base import AttuneExecutor

DEFAULT_LIMIT = 5
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Indexer(AttuneExecutor):
    """Keeps an index under `$ATTUNE_HOME/index`; documents must come through an Encoder.

    Args:
        index: name of the index; empty: the environment variable `ATTUNE_INDEX`, else `default`.
    """

    def __init__(self, index: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = Index(index or os.environ.get("ATTUNE_INDEX") or "default")
        self.indexed = Counter("attune_documents_indexed", "Documents stored or replaced", registry=self.metrics)
        self.seconds = Histogram(
            "attune_search_seconds", "Seconds to search one request's queries", buckets=BUCKETS, registry=self.metrics
        )

    @requests(on="/index")
    async def store(self, docs: DocList[SearchDocument], **kwargs: Any) -> DocList[SearchDocument]:
        """Embedded documents in; the same out, stored, without picture and embedding."""
        await asyncio.to_thread(self.index.upsert, docs)
        self.indexed.inc(len(docs))
        return _light(docs)

    @requests(on="/search")
    async def search(
        self, docs: DocList[SearchDocument], parameters: dict[str, Any], **kwargs: Any
    ) -> DocList[SearchDocument]:
        """Embedded queries in; the same out, with `matches` set, without picture and embedding."""
        limit = check_limit(parameters.get("limit", DEFAULT_LIMIT))
        with self.seconds.time():
            found = await asyncio.to_thread(self.index.search, docs, limit)
        for doc, matches in zip(docs, found, strict=True):
            doc.matches = DocList[SearchMatch](matches)
        return _light(docs)


def _light(docs: DocList[SearchDocument]) -> DocList[SearchDocument]:
    """The documents without what is large and not needed in a reply."""
    for doc in docs:
        doc.image, doc.embedding = b"", []
    return docs
