"""Requests to a Flow, one message there and one back.

Jina's streaming calls (`jina.Client.post`, `GatewayStreamer.stream`) wait for the end of the stream besides the answer,
and under load that end was now and then lost. With one request there is nothing to stream.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from docarray import BaseDoc, DocList
from jina.types.request.data import DataRequest

from attune.errors import AttuneError, error_from_name
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings
from attune.service.tls import certificate_name
from attune.service.tokens import service_token

RECONNECT = ("grpc.max_reconnect_backoff_ms", 2000)
"""Left alone, a channel that lost the gateway looks for it again after as long as two minutes."""


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


def gateway_channel(address: str) -> grpc.aio.Channel:
    """A channel from one of the service's processes to its own gateway: with the service's token, and TLS if that is set.

    Args:
        address: such as `grpc://127.0.0.1:51000`.
    """
    target = address.partition("://")[2]
    settings = service_settings()
    if settings.tls_certificate is None or settings.tls_key is None:
        return grpc.aio.insecure_channel(target, [RECONNECT], interceptors=[_WithToken()])
    # The gateway is called by another name than its users call it by, and whoever signed its certificate is not asked.
    credentials = grpc.ssl_channel_credentials(settings.tls_certificate.read_bytes())
    name = certificate_name(settings.tls_certificate, settings.tls_key)
    options = [RECONNECT, ("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(target, credentials, options, interceptors=[_WithToken()])


class _WithToken(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {service_token()}")]
        return await continuation(details._replace(metadata=grpc.aio.Metadata(*metadata)), request)
