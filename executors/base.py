"""What all executors share."""

from typing import Any

from docarray import DocList
from docarray.base_doc import AnyDoc
from jina import Executor, requests


class AttuneExecutor(Executor):
    """An Executor that lets requests for others through, and has a metrics registry."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # None where monitoring is off: prometheus metrics are then counted and not exposed.
        self.metrics = getattr(self.runtime_args, "metrics_registry", None)

    @requests
    async def pass_through(self, docs: DocList[AnyDoc], **kwargs: Any) -> DocList[AnyDoc]:
        """Every request goes through the chain; executors that do not serve it hand it on untouched.

        `AnyDoc` keeps fields it does not know, where `BaseDoc` would drop them. It is a coroutine so that it never
        waits for another endpoint of the same executor.
        """
        return docs
