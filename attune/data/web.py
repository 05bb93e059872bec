"""What lies at a web address, read from hosts that are allowed and from nowhere else.

A name may resolve to a machine that only the service can reach. So it is looked up once, and the very address that was
checked is connected to; a redirect is a new address, checked like the first. No proxies, no cookies, no credentials.
"""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, quote, urljoin, urlsplit

SECONDS = 20.0
"""For one address, redirects included; looking its name up takes as long as the system lets it."""

MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_SAFE = "/%:@!$&'()*+,;=~?"


class WebRefused(Exception):
    """What may not be read."""


class WebError(Exception):
    """What may be read and cannot be."""


def fetch(url: str, hosts: Sequence[str], max_bytes: int) -> bytes:
    """What a GET request is answered with.

    Args:
        url: http or https.
        hosts: who may be asked: names, exactly as addresses have them, with `:port` where it is not the scheme's own. A name
            must resolve to public addresses only; a literal IP address in this list may lead anywhere.
        max_bytes: the most that is read.

    Raises:
        WebRefused: if the address, or one that it redirects to, may not be asked.
        WebError: if the answer has another status than 200, is larger, or takes longer than `SECONDS`.
    """
    ends = time.monotonic() + SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        parts, port, addresses = checked(url, hosts)
        try:
            body, location = _get(parts, port, addresses, max_bytes, ends)
        except (OSError, HTTPException, ValueError) as error:
            slow = time.monotonic() >= ends
            why = f"there was no answer within {SECONDS:g} s" if slow else str(error) or type(error).__name__
            raise WebError(f"it cannot be read: {why}") from error
        if location is None:
            return body
        url = urljoin(url, location)
    raise WebError(f"it redirects more than {MAX_REDIRECTS} times")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and stands for no other address."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.is_site_local):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def checked(url: str, hosts: Sequence[str]) -> tuple[SplitResult, int, list[str]]:
    """An address taken apart, its port, and the IP addresses that may be connected to for it.

    Args:
        url: http or https.
        hosts: as for `fetch`.

    Raises:
        WebRefused: if it may not be asked.
        WebError: if its host is not found.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise WebRefused(f"it is no web address ({error})") from error
    if parts.scheme not in _PORTS:
        raise WebRefused("only http and https are read")
    if "@" in parts.netloc:
        raise WebRefused("there is a user name in the address")
    name = f"[{host}]" if ":" in host else host
    asked = {f"{name}:{port}"} | ({name} if port == _PORTS[parts.scheme] else set())
    if asked.isdisjoint(allowed.lower() for allowed in hosts):
        raise WebRefused("the service may not read from this host")
    try:
        found = list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except (OSError, UnicodeError) as error:
        raise WebError(f"its host is not found ({error})") from error
    if not _is_literal(host) and not all(map(is_public, found)):
        raise WebRefused("its host is not on the public internet")
    return parts, port, found


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _get(parts: SplitResult, port: int, addresses: Sequence[str], max_bytes: int, ends: float) -> tuple[bytes, str | None]:
    """The body, or where it is redirected to."""
    connected = _connect(addresses, port, ends)
    if parts.scheme == "https":
        connected = ssl.create_default_context().wrap_socket(
            connected, server_hostname=parts.hostname, do_handshake_on_connect=False
        )
    # A server that sends a byte now and then would pass every time-out of the socket.
    timer = threading.Timer(ends - time.monotonic(), _end, [connected])
    timer.start()
    try:
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        connection = HTTPConnection(parts.hostname or "", port)
        connection.sock = connected
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        headers = {"Host": parts.netloc, "User-Agent": "attune", "Accept": "image/*", "Connection": "close"}
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        location = answer.getheader("Location")
        if answer.status in (301, 302, 303, 307, 308) and location:
            return b"", location
        if answer.status != 200:
            raise WebError(f"the answer is {answer.status} {answer.reason}"[:100])
        body = answer.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise WebError(f"it has more than {max_bytes:,} bytes")
        if answer.length or time.monotonic() >= ends:
            raise OSError("the answer was cut short")
        return body, None
    finally:
        timer.cancel()
        connected.close()


def _connect(addresses: Sequence[str], port: int, ends: float) -> socket.socket:
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), max(0.1, ends - time.monotonic()) / 2)
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), max(0.1, ends - time.monotonic()))


def _end(connected: socket.socket) -> None:
    """Whoever waits for this socket is told that nothing more comes. As a plain socket: TLS would wait for its lock."""
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
