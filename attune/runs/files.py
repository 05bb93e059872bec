"""Files of a run, in pieces."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from attune.errors import RunError
from attune.files import sha256
from attune.runs.folder import RunFolder
from attune.schemas import FileChunk

CHUNK_BYTES = 4 * 1024 * 1024


def read_chunk(chunk: FileChunk) -> FileChunk:
    """A piece of a file of a run: `data` from `offset` on, the size and checksum of the whole as it is now.

    Args:
        chunk: run, path within the run folder, and offset.

    Raises:
        RunNotFound: if there is no such run.
        RunError: if the run folder has no such file.
    """
    folder = RunFolder.open(chunk.run)
    path = _find(folder.path, chunk.path)
    if path is None:
        raise RunError(f"Run {chunk.run!r} has no file {chunk.path[:300]!r}")
    with path.open("rb") as file:
        file.seek(chunk.offset)
        data = file.read(CHUNK_BYTES)
        status = os.fstat(file.fileno())
    is_whole = chunk.offset == 0 and len(data) == status.st_size
    checksum = hashlib.sha256(data).hexdigest() if is_whole else _checksum(folder, path, status)
    return FileChunk(run=chunk.run, path=chunk.path, offset=chunk.offset, data=data, total=status.st_size, sha256=checksum)


def _checksum(folder: RunFolder, path: Path, status: os.stat_result) -> str:
    """Of a large file. Those of the artifact are known; any other takes seconds, so it is read once for all pieces."""
    own = path.is_relative_to(folder.artifact)
    known = folder.load().artifact.checksums.get(path.relative_to(folder.artifact).as_posix()) if own else None
    return known or _sha256(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1000)
def _sha256(path: Path, *_: int) -> str:
    """The numbers tell one content of the file from the next."""
    return sha256(path)


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder; None if there is none, or a link leads out of the folder."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError):  # too long, a loop of links, a null byte
        return None
