"""Where a service is: `grpc://host:port`, `grpcs://`, `http://` or `https://`. And by what token it is asked."""

import ipaddress
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from attune.errors import AuthenticationError, ServiceUnavailable, SettingsError
from client.login import stored_token

SCHEMES = ("grpc", "grpcs", "http", "https")


@dataclass(frozen=True)
class Address:
    """A service's URL, taken apart, and the token for it.

    Attributes:
        url: as the user gave it.
        scheme: one of `SCHEMES`.
        host: name or IP address.
        port: None for the usual one of http and https.
        flow: the Flow that would answer here, for messages.
        token: as the user gave it, if at all.
    """

    url: str
    scheme: str
    host: str
    port: int | None
    flow: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_encrypted(self) -> bool:
        """Whether it is reached over TLS."""
        return self.scheme in ("grpcs", "https")

    @cached_property
    def authorization(self) -> str:
        """What is sent as `authorization`: the token given, that of ATTUNE_TOKEN, or the one `login` keeps; or nothing.

        Raises:
            AuthenticationError: if it is no token, or everybody on the way to the service could read it.
        """
        token = self.token or os.environ.get("ATTUNE_TOKEN") or stored_token(self.url)
        token = (token or "").strip()
        if not token:
            return ""
        if not (token.isascii() and token.isprintable()):
            raise AuthenticationError("The token was not sent: it has characters that no token has. Copy it again")
        if not (self.is_encrypted or _is_this_machine(self.host) or os.environ.get("ATTUNE_INSECURE") == "1"):
            raise AuthenticationError(
                f"The token was not sent: {self.url} is another machine, and not encrypted. Use grpcs:// or https://, or a "
                "tunnel to this machine; or set ATTUNE_INSECURE=1 if the network between is your own"
            )
        return f"Bearer {token}"

    @property
    def authority(self) -> Path | None:
        """PEM file of the private authority that signed the service's certificate, named by ATTUNE_CA; None if public.

        Raises:
            SettingsError: if there is no such file.
        """
        path = os.environ.get("ATTUNE_CA")
        if path and not Path(path).is_file():
            raise SettingsError(f"ATTUNE_CA = {path!r} is no file. Give the path of a PEM file")
        return Path(path) if path else None

    def unavailable(self) -> ServiceUnavailable:
        """The error for a service that does not answer."""
        trust = ". If its certificate is of a private authority, name that in ATTUNE_CA" if self.is_encrypted else ""
        return ServiceUnavailable(
            f"No Attune service answers at {self.url}. Start one with `jina flow --uses {self.flow}`, "
            f"or give another address{trust}"
        )


def parse_address(url: str, flow: str, token: str | None = None) -> Address:
    """The address a URL names.

    Args:
        url: such as ``grpc://localhost:51000``.
        flow: the Flow that is expected there, such as ``flows/finetune.yml``.
        token: for it; by default that of ATTUNE_TOKEN, or the one `client.login` keeps.

    Raises:
        SettingsError: if the scheme, the host or the port is missing or unknown.
    """
    if not isinstance(url, str):
        raise _unusable(url, "it is no text")
    if token is not None and not isinstance(token, str):
        raise SettingsError("The token is no text. Give it as it was made")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unusable(url, str(error)) from error
    if parts.scheme not in SCHEMES:
        raise _unusable(url, f"it starts with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.username is not None or parts.password is not None:
        raise _unusable(f"{parts.scheme}://...@{host}", "a token has no place in it. Use token= or ATTUNE_TOKEN")
    if not host:
        raise _unusable(url, "it names no host")
    if port is None and parts.scheme.startswith("grpc"):
        raise _unusable(url, "it names no port")
    return Address(url.rstrip("/"), parts.scheme, host, port, flow, token)


def _unusable(url: str, reason: str) -> SettingsError:
    return SettingsError(
        f"The address {url!r} cannot be used: {reason}. Give one such as grpc://localhost:51000 or http://localhost:52000"
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
