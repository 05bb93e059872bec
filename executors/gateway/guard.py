"""Who may ask the gateway for what, and how often. The same for gRPC and HTTP."""

import hmac
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from attune.errors import (
    AuthenticationError,
    AuthorizationError,
    DataError,
    LimitExceeded,
    ServiceUnavailable,
)
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings
from attune.service.tokens import SERVICE, Tokens, service_token, tokens_file, tokens_required
from executors.gateway.room import SMALL, Room

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 10_000
"""Of one request to push, index or search."""
MAX_DOCUMENTS = 16
"""Of any other request: an answer to one may be some megabytes."""
MANY = {"/push", "/index", "/search"}
KEYS, KEYS_BYTES = {"/datasets/uploaded", "/datasets/commit"}, 8_000_000
"""They name all batches of a push, each by 64 letters."""
LARGEST_PARAMETERS = 10_000
"""Bytes. To read them takes several hundred times as much memory."""
BURST_SECONDS = 10
FORGET_ABOVE = 10_000  # callers whose rate is kept
EXECUTORS = {endpoint.executor for endpoint in ENDPOINTS.values()} | {"encoder", "indexer"}


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the token; without tokens, the address.
        may_change: whether endpoints that change something are open.
    """

    name: str
    may_change: bool


class Rates:
    """A bucket of requests for each caller: it holds as many as `BURST_SECONDS` bring, and each request takes one.

    Args:
        per_second: requests a second that a bucket is refilled with; 0 is no limit.
        clock: seconds, always growing.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self.capacity = max(per_second * BURST_SECONDS, 1.0)
        self.clock = clock
        self.buckets: dict[str, tuple[float, float]] = {}  # caller -> what was left, and when

    def spend(self, caller: str) -> None:
        """Takes one request from the caller's bucket.

        Raises:
            LimitExceeded: if it is empty, with the seconds until it is not.
        """
        if not self.per_second:
            return
        if len(self.buckets) > FORGET_ABOVE:
            self.buckets = {name: kept for name, kept in self.buckets.items() if self._level(name) < self.capacity}
        level = self._level(caller)
        if level < 1:
            error = LimitExceeded(f"{caller} asks more often than {self.per_second:g} times a second. Wait, and ask again")
            error.seconds = round((1 - level) / self.per_second, 3) + 0.001
            raise error
        self.buckets[caller] = level - 1, self.clock()

    def _level(self, caller: str) -> float:
        left, since = self.buckets.get(caller, (self.capacity, self.clock()))
        return min(self.capacity, left + (self.clock() - since) * self.per_second)


class Guard:
    """Lets callers in or refuses them with an `AttuneError`.

    Attributes:
        room: in which bodies are held while they are read.
        is_closing: whether the gateway is about to stop.
    """

    def __init__(self) -> None:
        self.tokens = Tokens(tokens_file())
        self.required = tokens_required()
        self.service_token = service_token()
        self.rates = Rates(service_settings().requests_per_second)
        self.room = Room()
        self.is_closing = False

    def caller(self, authorization: str, address: str) -> Caller:
        """Who asks.

        Args:
            authorization: what came as the header or metadata `authorization`.
            address: where the request came from.

        Raises:
            AuthenticationError: if a token is needed and this is none.
            LimitExceeded: if requests come too fast.
        """
        self.required = self.required or tokens_required()  # once there were tokens, losing the file opens nothing
        if not self.required:
            self.rates.spend(address)
            return Caller(address, True)
        scheme, _, token = authorization.strip().partition(" ")
        holder = self.tokens.holder(token.strip()) if scheme.lower() == "bearer" else None
        if holder is not None:
            self.rates.spend(holder.name)
            return Caller(holder.name, holder.role == "full")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self.service_token.encode()):
            return Caller(SERVICE, True)
        self.rates.spend(address)
        given = "the one that was sent is unknown" if token else "none was sent"
        raise AuthenticationError(
            f"This service asks for a token, and {given}. Set ATTUNE_TOKEN, or keep one with `python -m client login`; "
            "whoever runs the service makes it with `python -m flows.tokens add NAME`"
        )

    def admit(self, caller: Caller, path: str, served: Collection[str]) -> None:
        """Lets a request for an endpoint through.

        Raises:
            ServiceUnavailable: if there is no such endpoint.
            AuthorizationError: if the caller may not use it.
        """
        if path not in ENDPOINTS or path not in served:
            known = ", ".join(sorted(set(served) & ENDPOINTS.keys()))
            raise ServiceUnavailable(f"This service does not serve {path[:100]!r}. It serves: {known}")
        if ENDPOINTS[path].changes:
            if not caller.may_change:
                raise AuthorizationError(f"The token {caller.name!r} may only read, and {path} changes something")
            logger.info("%s %s", caller.name, path)


def largest_request(path: str) -> int:
    """Bytes of the largest request that an endpoint takes: what little is asked for with needs little."""
    most = service_settings().max_request
    return most if path in MANY else min(most, KEYS_BYTES if path in KEYS else SMALL)


def most_documents(path: str) -> int:
    """Documents that a request to an endpoint may have."""
    return MAX_EXAMPLES if path in MANY else MAX_DOCUMENTS


def too_many_documents(path: str) -> LimitExceeded:
    """The error for more of them."""
    return LimitExceeded(f"The request has more than {most_documents(path)} documents. Send several requests")


def check_size(path: str, documents: int, parameters: dict[str, Any]) -> None:
    """Refuses requests that are none of ours.

    Raises:
        LimitExceeded: if there are too many documents.
        DataError: if parameters name an executor; Jina would read them as settings of that executor's alone.
    """
    if documents > most_documents(path):
        raise too_many_documents(path)
    if wrong := [name for name in parameters if name in EXECUTORS or "__" in name.strip("_")]:
        raise DataError(f"The request's parameters have {wrong[0][:100]!r}, which no endpoint knows. Leave it out")
