"""Calls over HTTP: documents as JSON, their bytes in base64.

POST {url}{endpoint} {"data": [...], "parameters": {...}}
Authorization: Bearer TOKEN, if there is one
200 {"data": [...]}, or 4xx and 5xx {"error": "RunExists", "message": "..."}
"""

import base64
from collections.abc import Sequence
from typing import Any

import requests

from attune.errors import AttuneError, LimitExceeded, ServiceUnavailable, error_from_name
from client.address import Address
from client.limits import limit_exceeded, when_allowed

# To connect, and to wait for the answer: closing the push of a large dataset takes minutes.
TIMEOUT_SECONDS = (10, 3600)


class HttpTransport:
    """Calls the HTTP side of Attune's gateway."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._session = requests.Session()

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        """See `client.transport.Transport`."""
        from attune.schemas import ENDPOINTS

        body = {"data": [_to_json(document) for document in documents], "parameters": parameters or {}}
        answer = when_allowed(lambda: self._read(self._send(endpoint, body)))
        return [_from_json(ENDPOINTS[endpoint].gives, fields) for fields in answer["data"]]

    def _send(self, endpoint: str, body: dict[str, Any]) -> requests.Response:
        authority = self.address.authority
        try:
            return self._session.post(
                self.address.url + endpoint,
                json=body,
                auth=self._with_token,
                timeout=TIMEOUT_SECONDS,
                verify=str(authority) if authority else True,
                allow_redirects=False,  # the token is for this address
            )
        except requests.ConnectionError:
            raise self.address.unavailable() from None
        except requests.RequestException as error:
            raise AttuneError(f"{self.address.url} could not answer {endpoint}: {error}") from error

    def _with_token(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """A function and not a header: from a `.netrc` requests would put another in its place."""
        if authorization := self.address.authorization:
            request.headers["authorization"] = authorization
        return request

    def _read(self, response: requests.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        if isinstance(answer, dict) and response.ok and "data" in answer:
            return answer
        if isinstance(answer, dict) and "error" in answer:
            if answer["error"] == LimitExceeded.__name__:
                raise limit_exceeded(answer.get("message", ""), response.headers.get("retry-after"))
            raise error_from_name(answer["error"], answer.get("message", ""))
        if response.status_code == 503:  # the gateway has no connection left, or something before it has no gateway
            raise ServiceUnavailable(f"{response.url} is too busy to answer. Ask again in a while")
        raise AttuneError(
            f"{response.url} answered {response.status_code} {response.text[:200]!r}, which is not what an Attune "
            "gateway answers. Check the address"
        )


def _bytes_fields(document_type: Any) -> list[str]:
    return [name for name, field in document_type.model_fields.items() if field.annotation is bytes]


def _to_json(document: Any) -> dict[str, Any]:
    fields: dict[str, Any] = document.model_dump()
    for name, value in fields.items():
        if isinstance(value, bytes):
            fields[name] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, list):  # of texts, numbers or pictures
            fields[name] = [base64.b64encode(one).decode("ascii") if isinstance(one, bytes) else one for one in value]
    return fields


def _from_json(document_type: Any, fields: dict[str, Any]) -> Any:
    decoded = {name: base64.b64decode(fields[name]) for name in _bytes_fields(document_type) if name in fields}
    return document_type(**{**fields, **decoded})
