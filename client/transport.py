"""One call to a service, over gRPC or HTTP. What each endpoint takes and gives is in `attune.schemas.ENDPOINTS`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from attune.errors import ServiceUnavailable
from client.address import Address, parse_address
from client.over_grpc import GrpcTransport
from client.over_http import HttpTransport

RETRY_AFTER_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
Result = TypeVar("Result")


class Transport(Protocol):
    """A way to a service."""

    address: Address

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        """The documents an endpoint gives for those it takes.

        Raises:
            AttuneError: what the service raised, as the same class.
            ServiceUnavailable: if nothing answers.
        """


def connect(url: str, flow: str, token: str | None = None) -> Transport:
    """The way to a service, chosen by the URL's scheme. Nothing is sent yet.

    Raises:
        SettingsError: if the URL cannot be used.
    """
    address = parse_address(url, flow, token)
    return GrpcTransport(address) if address.scheme.startswith("grpc") else HttpTransport(address)


def call_one(transport: Transport, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> Any:
    """The one document an endpoint gives.

    Raises:
        ServiceUnavailable: if it gives another number of them: what answers is no such service.
    """
    answer = transport.call(endpoint, documents, parameters)
    if len(answer) != 1:
        raise wrong_service(transport, f"answered {endpoint} with {len(answer)} documents instead of 1")
    return answer[0]


def wrong_service(transport: Transport, found: str) -> ServiceUnavailable:
    """The error for a Flow that answers and is not the one that was meant.

    A Flow hands requests that no executor of it serves back untouched, so callers look at what came back.
    """
    address = transport.address
    return ServiceUnavailable(f"{address.url} {found}. Is it a service of `jina flow --uses {address.flow}`?")


def patiently(call: Callable[[], Result], waits: Sequence[float] = RETRY_AFTER_SECONDS) -> Result:
    """What `call` returns; while the service does not answer, it is called again.

    For calls that may safely arrive twice, to a service that answered a moment ago.

    Args:
        call: asks the service.
        waits: seconds before each further try; by default about 15 in all.
    """
    for seconds in waits:
        try:
            return call()
        except ServiceUnavailable:
            time.sleep(seconds)
    return call()
