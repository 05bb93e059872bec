"""Files of a run, in pieces, checked against their SHA-256.

A download that is broken off leaves `.NAME.part` beside its target, and the next one goes on from there.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attune.errors import RunError
from attune.names import is_name
from client.events import RESTART_SECONDS
from client.transport import RETRY_AFTER_SECONDS, Transport, call_one, patiently

if TYPE_CHECKING:
    from attune.schemas import FileChunk

TRIES = 2
"""Once from what an earlier download left, and once from the start."""


class _Changed(RunError):
    """The file is another one than it was when its first piece was sent."""


def read_chunks(
    transport: Transport, run: str, path: str, offset: int = 0, waits: Sequence[float] = RETRY_AFTER_SECONDS
) -> Iterator["FileChunk"]:
    """The pieces of a file, in order; one empty piece if nothing is left of it.

    Args:
        transport: the way to the service.
        run: the run, as `Run.reference` says.
        path: relative to the run folder, such as ``report/examples.json``.
        offset: bytes of it that are not wanted.
        waits: seconds before each further try for the first piece; for the others it is waited as long as a restart takes.

    Raises:
        RunError: if there is no such file, or it changes while it is read.
    """
    from attune.schemas import FileChunk

    first: FileChunk | None = None
    while True:
        ask = partial(call_one, transport, "/runs/file", [FileChunk(run=run, path=path, offset=offset)])
        chunk = patiently(ask, waits if first is None else RESTART_SECONDS)
        first = first or chunk
        if (chunk.total, chunk.sha256) != (first.total, first.sha256):
            raise _Changed(f"{path} of run {run!r} changed while it was read. Download it again")
        yield chunk
        offset += len(chunk.data)
        if offset >= chunk.total:
            return
        if not chunk.data:
            raise RunError(f"{path} of run {run!r} ends at byte {offset} of {chunk.total}. Download it again")


def read_file(transport: Transport, run: str, path: str) -> bytes:
    """A small file's content."""
    return b"".join(chunk.data for chunk in read_chunks(transport, run, path))


def download_file(transport: Transport, run: str, path: str, to: Path) -> Path:
    """Copies a file of a run to `to`, which exists only once it is whole.

    Args:
        transport: the way to the service.
        run: the run, as `Run.reference` says.
        path: relative to the run folder.
        to: the file to write; its folder is made.

    Raises:
        RunError: if it arrived with another checksum.
    """
    with _alone_in(to.parent):
        _fetch(transport, run, path, to).replace(to)
    return to


def download_folder(
    transport: Transport,
    run: str,
    path: str,
    checksums: Mapping[str, str],
    to: Path,
    on_bytes: Callable[[int], None],
) -> Path:
    """Copies files of a folder of a run into `to`. They get there only when all are whole; those there are not sent again.

    Args:
        transport: the way to the service.
        run: the run, as `Run.reference` says.
        path: of the folder, relative to the run folder.
        checksums: SHA-256 of each file, by its path in the folder.
        to: the folder to write; it is made.
        on_bytes: told how many bytes there are more, piece by piece.

    Raises:
        RunError: if one arrived with another checksum, or has a name that could lead out of the folder; or if the folder
            holds anything else.
    """
    strange = [name for name in checksums if not all(map(is_name, name.split("/")))]
    if strange:
        raise RunError(f"Run {run!r} names files that cannot be in {path!r} ({', '.join(strange)[:200]}): not downloaded")
    with _alone_in(to):
        there = {name for name, checksum in checksums.items() if _sha256(to / name) == checksum}
        _refuse_others(to, {*there, *(_part_of(Path(name)).as_posix() for name in checksums)})
        for name in there:
            on_bytes((to / name).stat().st_size)
        parts = {
            name: _fetch(transport, run, f"{path}/{name}", to / name, checksum, on_bytes, RESTART_SECONDS)
            for name, checksum in checksums.items()
            if name not in there
        }
        for name, part in parts.items():
            part.replace(to / name)
    return to


def _fetch(
    transport: Transport,
    run: str,
    path: str,
    to: Path,
    sha256: str | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
    waits: Sequence[float] = RETRY_AFTER_SECONDS,
) -> Path:
    """The whole file, beside its target.

    Args:
        transport: the way to the service.
        run: the run.
        path: relative to the run folder.
        to: the target.
        sha256: what it must have; by default what the service says of it.
        on_bytes: told how many bytes there are more; fewer, if what was there is thrown away.
        waits: as for `read_chunks`.
    """
    part = _part_of(to)
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.is_symlink():
        part.unlink()  # not ours, and writing to it would write elsewhere
    for _ in range(TRIES):
        with part.open("a+b") as file:
            expected = sha256
            size = file.seek(0, os.SEEK_END)
            on_bytes(size)
            try:
                for chunk in read_chunks(transport, run, path, size, waits):
                    file.write(chunk.data)
                    on_bytes(len(chunk.data))
                    expected = sha256 or chunk.sha256
            except _Changed:
                expected = None
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == expected:
            return part
        part.unlink()
        on_bytes(-size)
    raise RunError(
        f"{path} of run {run!r} arrived with SHA-256 {found} instead of {expected or 'one and the same'}: it changed or was "
        "damaged on the way. Download it again"
    )


def _part_of(path: Path) -> Path:
    """Where a file is until it is whole: beside its target."""
    return path.with_name(f".{path.name}.part")


def _refuse_others(folder: Path, own: Set[str]) -> None:
    """Passes if the folder holds nothing but `own`: files of another model would be lost, or be taken for this one's."""
    folders = {folder / parent for name in own for parent in Path(name).parents}
    found = [entry for entry in folder.rglob("*") if entry.is_symlink() or entry not in folders]
    if others := sorted({name for entry in found if (name := entry.relative_to(folder).as_posix()) not in own}):
        raise RunError(
            f"{str(folder)!r} holds other files ({', '.join(others[:3])}{', ...' * (len(others) > 3)}). Nothing was "
            "written: give a folder that is empty, or not there yet"
        )


def _sha256(path: Path) -> str | None:
    """Of a file that is there; no link counts."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder, and waits until no other process downloads into it."""
    import fcntl  # here, because some systems do not have it and may still do all the rest

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
