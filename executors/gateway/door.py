"""What stands before the HTTP app: it looks at a request's head, and lets no larger body in than is allowed.

Health (`/`) and the documentation, which is the same for every service of a version, are open to all.
"""

import asyncio
import json
import math
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attune import errors
from attune.characters import visible
from attune.errors import AttuneError, AuthorizationError, DataError, LimitExceeded
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings
from attune.service.tokens import is_loopback
from executors.gateway.guard import Guard, largest_request

OPEN = {"/", "/openapi.json"}
DOCS = "/docs"
IDLE_SECONDS = 60.0
"""A body of which nothing more came for so long is given up."""
DRAIN_SECONDS = 5.0
"""For the rest of a body that is refused; then it is cut off."""
STATUS = {
    errors.AuthenticationError: 401,
    errors.AuthorizationError: 403,
    errors.DatasetNotFound: 404,
    errors.RunNotFound: 404,
    errors.RunExists: 409,
    errors.LimitExceeded: 429,
    errors.ServiceUnavailable: 503,
    errors.StorageFull: 507,
    errors.RunFailed: 500,
    errors.TrainingError: 500,
    errors.ExportError: 500,
}
"""Any other error of ours is 422; one that is no more than an `AttuneError` is the service's own mistake, 500."""


class Door:
    """ASGI middleware: asks the guard, and refuses bodies above the service's `max_request`."""

    def __init__(self, app: ASGIApp, guard: Guard, served: set[str]) -> None:
        self.app = app
        self.guard = guard
        self.served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with the reason why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        limit = largest_request(scope["path"])
        try:
            host = _host(headers.get("host", ""))
            if not self.guard.required:
                _check_origin(headers, host)
            if not (scope["path"] in OPEN or scope["path"].startswith(DOCS)):
                caller = self.guard.caller(headers.get("authorization", ""), (scope["client"] or ("",))[0])
                if scope["path"] in ENDPOINTS:
                    self.guard.admit(caller, scope["path"], self.served)
            # A body that comes in pieces does not say how many: it may be the largest.
            size = limit if "transfer-encoding" in headers else int(headers.get("content-length", "0"))
            if size > limit:
                raise too_large(limit)
            async with self.guard.room.take(size):
                await self.app(scope, _limited(receive, limit), send)
        except AttuneError as error:
            await _drain(receive, limit)
            await _send(send, *answer_of(error))


def answer_of(error: AttuneError) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, body and headers that tell of an error."""
    plain = 500 if type(error) is AttuneError else 422
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), plain)
    headers = {}
    if isinstance(error, LimitExceeded):
        if error.seconds:
            headers["retry-after"] = str(math.ceil(error.seconds))
        else:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return int(status), {"error": type(error).__name__, "message": visible(str(error))}, headers


def too_large(limit: int) -> LimitExceeded:
    """The error for a body above the limit, in bytes."""
    return LimitExceeded(f"The request is larger than {limit:,} bytes (ATTUNE_MAX_REQUEST). Send several smaller ones")


def _host(value: str) -> str:
    """The name or address in a `host` header, without its port.

    Raises:
        DataError: if there cannot be such a one; what reads it further on, to redirect, would fail.
    """
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError as error:
        raise DataError(f"The header `host` is {value[:100]!r}: {error}. Give the name the service is called by") from error


def _check_origin(headers: dict[str, str], host: str) -> None:
    """Keeps web pages that a user of this machine visits from calling the service, where no token does.

    A page of another origin says so in `origin`. One that had its own name resolved to 127.0.0.1 shows it in `host`.
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
        raise AuthorizationError(f"Web pages of {origin[:100]} may not call this service")
    if is_loopback(service_settings().host) and not is_loopback(host):
        raise AuthorizationError(
            f"This service is not {headers.get('host', '')[:100]!r}. Ask for it as localhost or 127.0.0.1"
        )


def _limited(receive: Receive, limit: int) -> Receive:
    """The same messages, until they are too many bytes: a body that comes in pieces does not say its length."""
    seen, whole = 0, False

    async def receive_some() -> Message:
        nonlocal seen, whole
        try:
            message = await asyncio.wait_for(receive(), None if whole else IDLE_SECONDS)
        except TimeoutError:
            raise HTTPException(408, f"Nothing of the request's body came for {IDLE_SECONDS:g} s. Send it again") from None
        whole = not message.get("more_body", False)
        seen += len(message.get("body", b""))
        if seen > limit:
            await _drain(receive, limit)
            raise HTTPException(413, str(too_large(limit)))
        return message

    return receive_some


async def _drain(receive: Receive, limit: int) -> None:
    """Reads what is left of a body, and keeps nothing: a caller that is still sending would not see the answer."""
    left = 8 * limit
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


async def _send(send: Send, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
    text = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(text)), **headers}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text})
