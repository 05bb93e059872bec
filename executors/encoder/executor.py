"""The Encoder: a tuned model that embeds documents and queries; the work is `attune.search.encoder`."""

import asyncio
import os
from typing import Any

from docarray import DocList
from jina import requests
from prometheus_client import Counter

from attune.schemas import SearchDocument
from attune.search.encoder import embed, load_encoder
from executors.base import AttuneExecutor


class Encoder(AttuneExecutor):
    """Embeds documents by their picture if they have one, else by their text.

    Args:
        artifact: a run's name, a folder or a model name; empty: what `ATTUNE_ARTIFACT` says, else `starter`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        towers: `text` or `image` keeps only that half of the model in memory; `both` keeps both.
        dim: length of the embeddings, one of the `matryoshka_dims` that the model was trained for; 0 is the whole.
    """

    def __init__(self, artifact: str = "", device: str = "auto", towers: str = "both", dim: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = load_encoder(artifact or os.environ.get("ATTUNE_ARTIFACT") or "starter", device, towers, dim)
        self.encoded = Counter("attune_documents_encoded", "Documents and queries embedded", registry=self.metrics)

    @requests(on=["/index", "/search"])
    async def encode(self, docs: DocList[SearchDocument], **kwargs: Any) -> DocList[SearchDocument]:
        """Documents in; the same out, with `embedding` and `model` set."""
        await asyncio.to_thread(embed, self.encoder, docs)
        self.encoded.inc(len(docs))
        return docs
