"""Requests to a Flow, one message there and one back.

Jina's streaming calls (`jina.Client.post`, `GatewayStreamer.stream`) wait for the end of the stream besides the answer,
and under load that end was now and then lost. With one request there is nothing to stream.
"""

from collections.abc import Sequence
from typing import Any

from docarray import BaseDoc, DocList
from jina.types.request.data import DataRequest

from attune.errors import AttuneError, error_from_name
from attune.schemas import ENDPOINTS


def make_request(path: str, docs: Sequence[BaseDoc], parameters: dict[str, Any] | None = None) -> DataRequest:
    """A request for an endpoint of `attune.schemas.ENDPOINTS`, addressed to the executor that serves it."""
    endpoint = ENDPOINTS[path]
    request = DataRequest()
    request.document_array_cls = DocList[endpoint.takes]
    request.data.docs = DocList[endpoint.takes](docs)
    request.header.exec_endpoint = path
    request.header.target_executor = f"^{endpoint.executor}$" if endpoint.executor else ""
    request.parameters = parameters or {}
    return request


def read_answer(path: str, answer: DataRequest) -> list[BaseDoc]:
    """The documents of an answer.

    Raises:
        AttuneError: what the executor raised, as the same class.
    """
    status = answer.status
    if status.code == status.ERROR:
        raised = status.exception
        raise error_from_name(raised.name, " ".join(raised.args)) if raised.name else AttuneError(status.description)
    answer.document_array_cls = DocList[ENDPOINTS[path].gives]
    return list(answer.docs)
