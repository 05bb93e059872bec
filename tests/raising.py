"""An executor that raises what it is asked for."""

from typing import Any

from docarray import DocList
from jina import requests

from attune.errors import error_from_name
from attune.schemas import SearchDocument
from executors.base import AttuneExecutor

DETAIL = "no-caller-should-see-this"


class Raising(AttuneExecutor):
    """Serves `/search`: a document's key names an error, its text is the message."""

    @requests(on="/search")
    async def search(self, docs: DocList[SearchDocument], **kwargs: Any) -> DocList[SearchDocument]:
        """Raises the error that the first document names; a name that is none of ours is a mistake of the service."""
        if docs[0].key == "mistake":
            raise ValueError(DETAIL)
        raise error_from_name(docs[0].key, docs[0].text)
