"""A little of the disk that a run holds for its last words: where the disk is full, it still says why it ended."""

import os
from pathlib import Path

RESERVE = ".reserve"
BYTES = 64 * 1024


def take_reserve(folder: Path) -> None:
    """Holds it for the run in this folder.

    Raises:
        OSError: if the disk is full already.
    """
    # Zeros would take no room on a disk that compresses.
    (folder / RESERVE).write_bytes(os.urandom(BYTES))


def spend_reserve(folder: Path) -> None:
    """Gives it back to the disk, to write something else in its place."""
    (folder / RESERVE).unlink(missing_ok=True)
