"""Files that are whole or not there, written beside their place and renamed into it; and locks between processes."""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attune.errors import StorageFull


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces the file's text as a whole: a reader sees the old text or the new one."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other thread or process holds this lock file; it is freed even if this process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_now(path: Path) -> Iterator[bool]:
    """Takes the lock file if no other thread or process holds it; yields whether it did, and waits for nobody."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_may_fill(what: str) -> Iterator[None]:
    """Says in words that the disk is full, if that is what the block failed of.

    Args:
        what: cannot go on then, as in `"run 'my-run'"`.

    Raises:
        StorageFull: with what to do.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise StorageFull(
            f"The disk is full: {what} cannot go on. What was written before is kept. Delete runs or datasets that are no "
            "longer needed, then resume it"
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error says, or was caused by one that says, that the disk or its owner's share of it is full."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "(os error 28)" in str(error) or "disk is full" in str(error):  # as safetensors says it, and SQLite
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
