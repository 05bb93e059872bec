"""Where a service is: `grpc://host:port`, `grpcs://`, `http://` or `https://`."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from attune.errors import ServiceUnavailable, SettingsError

SCHEMES = ("grpc", "grpcs", "http", "https")


@dataclass(frozen=True)
class Address:
    """A service's URL, taken apart.

    Attributes:
        url: as the user gave it.
        scheme: one of `SCHEMES`.
        host: name or IP address.
        port: None for the usual one of http and https.
        flow: the Flow that would answer here, for messages.
    """

    url: str
    scheme: str
    host: str
    port: int | None
    flow: str

    def unavailable(self) -> ServiceUnavailable:
        """The error for a service that does not answer."""
        return ServiceUnavailable(
            f"No Attune service answers at {self.url}. Start one with `jina flow --uses {self.flow}`, "
            "or give another address"
        )


def parse_address(url: str, flow: str) -> Address:
    """The address a URL names.

    Args:
        url: such as ``grpc://localhost:51000``.
        flow: the Flow that is expected there, such as ``flows/finetune.yml``.

    Raises:
        SettingsError: if the scheme, the host or the port is missing or unknown.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unusable(url, str(error)) from error
    if parts.scheme not in SCHEMES:
        raise _unusable(url, f"it starts with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if not host:
        raise _unusable(url, "it names no host")
    if port is None and parts.scheme.startswith("grpc"):
        raise _unusable(url, "it names no port")
    return Address(url.rstrip("/"), parts.scheme, host, port, flow)


def _unusable(url: str, reason: str) -> SettingsError:
    return SettingsError(
        f"The address {url!r} cannot be used: {reason}. Give one such as grpc://localhost:51000 or http://localhost:52000"
    )
