"""Files of a run, in pieces, checked against their SHA-256."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attune.errors import RunError
from client.transport import Transport, call_one, patiently

if TYPE_CHECKING:
    from attune.schemas import FileChunk


def read_chunks(transport: Transport, run: str, path: str) -> Iterator["FileChunk"]:
    """The pieces of a file, in order; an empty file is one empty piece.

    Args:
        transport: the way to the service.
        run: the run's name.
        path: relative to the run folder, such as ``report/examples.json``.
    """
    from attune.schemas import FileChunk

    offset = 0
    while True:
        request = FileChunk(run=run, path=path, offset=offset)
        chunk = patiently(partial(call_one, transport, "/runs/file", [request]))
        yield chunk
        offset += len(chunk.data)
        if offset >= chunk.total:
            return
        if not chunk.data:
            raise RunError(f"{path} of run {run!r} ends at byte {offset} of {chunk.total}. Download it again")


def read_file(transport: Transport, run: str, path: str) -> bytes:
    """A small file's content."""
    return b"".join(chunk.data for chunk in read_chunks(transport, run, path))


def download_file(
    transport: Transport,
    run: str,
    path: str,
    to: Path,
    sha256: str = "",
    on_bytes: Callable[[int], None] | None = None,
) -> Path:
    """Copies a file of a run to `to`, which exists only once it is whole.

    Args:
        transport: the way to the service.
        run: the run's name.
        path: relative to the run folder.
        to: the file to write; its folder is made.
        sha256: what the file must have; by default what the service says of it.
        on_bytes: told how many bytes arrived, piece by piece.

    Raises:
        RunError: if it arrived with another checksum.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.part")
    digest = hashlib.sha256()
    expected = sha256
    try:
        with draft.open("wb") as file:
            for chunk in read_chunks(transport, run, path):
                file.write(chunk.data)
                expected = expected or chunk.sha256  # the service says it with the first piece
                digest.update(chunk.data)
                if on_bytes is not None:
                    on_bytes(len(chunk.data))
        if digest.hexdigest() != expected:
            raise RunError(
                f"{path} of run {run!r} arrived with SHA-256 {digest.hexdigest()} instead of {expected}: it changed "
                "or was damaged on the way. Download it again"
            )
        draft.replace(to)
    finally:
        draft.unlink(missing_ok=True)
    return to
