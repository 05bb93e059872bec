"""Pictures that the service reads itself, by path or web address, from where its operator allows it to.

Nothing is allowed unless ATTUNE_URI_ROOTS or ATTUNE_URI_HOSTS says so. A caller who could make the service read anything
would read its files and talk to its network; so what may be read is checked on the open file and on the connected
address, not on their names.
"""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attune.data.web import WebError, WebRefused, fetch
from attune.schemas import MAX_IMAGE_BYTES
from attune.service.roots import is_below
from attune.service.settings import service_settings

UNREAD = frozenset({"uri_refused", "unreadable_uri"})
"""Reasons of problems that a later try may not meet."""

AT_ONCE = 8
MAX_BATCH_BYTES = 256 * 2**20
"""Of all pictures read for one batch: they are in memory together. The picture that passes it is still read."""


class UriError(ValueError):
    """A picture that was not read; the message says why.

    Attributes:
        reason: one of `UNREAD`: `uri_refused`, or `unreadable_uri` for what may be read and cannot be.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_uris(uris: Sequence[str]) -> list[bytes | UriError]:
    """The pictures at these places, in order, or why one could not be read."""
    found: list[bytes | UriError] = []
    size = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(uris), AT_ONCE):
            some = uris[start : start + AT_ONCE]
            if size > MAX_BATCH_BYTES:
                limit = f"the pictures of one batch are more than {MAX_BATCH_BYTES:,} bytes. Send fewer examples at a time"
                found += [UriError("unreadable_uri", limit) for _ in some]
                continue
            read = list(pool.map(_read, some))
            size += sum(len(data) for data in read if isinstance(data, bytes))
            found += read
    return found


def read_uri(uri: str) -> bytes:
    """The picture at an absolute path or an http(s) address, at most `MAX_IMAGE_BYTES`.

    Raises:
        UriError: if it is not allowed, not there, too large or too slow.
    """
    settings = service_settings()
    if not uri.lower().startswith(("http://", "https://")):
        return _read_file(uri, settings.uri_roots)
    try:
        return fetch(uri, settings.uri_hosts, MAX_IMAGE_BYTES)
    except WebRefused as error:
        advice = "Send the picture's bytes, or ask the operator to add the host to ATTUNE_URI_HOSTS"
        raise UriError("uri_refused", f"{error}. {advice}") from error
    except WebError as error:
        raise UriError("unreadable_uri", f"{error}. Check the address, or send the picture's bytes") from error


def _read(uri: str) -> bytes | UriError:
    try:
        return read_uri(uri)
    except UriError as error:
        return error


def _read_file(name: str, roots: Sequence[Path]) -> bytes:
    # One message whether or not there is such a file: nobody learns what lies outside the roots.
    refused = UriError(
        "uri_refused",
        "the service may not read it. Send the picture's bytes, or ask the operator to add its folder to ATTUNE_URI_ROOTS",
    )
    path = Path(name)
    if not path.is_absolute() or not is_below(path, roots):
        raise refused
    try:
        opened = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise UriError("unreadable_uri", "there is no such file, or it cannot be opened. Check the path") from error
    with opened:
        # A link that was exchanged since is seen here: this is where the open file lies.
        if not is_below(Path(f"/proc/self/fd/{opened.fileno()}"), roots):
            raise refused
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UriError("unreadable_uri", "it is no regular file. Give the path of a picture")
        data = opened.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise UriError("unreadable_uri", f"it has more than {MAX_IMAGE_BYTES:,} bytes. Make the picture smaller")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO that nobody writes to would hold the thread for ever."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
