"""A run's history: `events.jsonl`, one JSON object a line, only ever appended to.

An event's number is that of its line. A process that is killed, or a full disk, may leave half a line: the next event then
starts a line of its own, and what cannot be read is passed over and keeps its number, so that numbers never change.
Every function takes the run's folder.
"""

import errno
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from attune.figures import CHOSEN_BY
from attune.schemas import RunEvent

EVENTS = "events.jsonl"
BLOCK_BYTES = 1024 * 1024
TAIL_BYTES = 64 * 1024
ENDS_KEPT = 10_000
_ends: dict[tuple[tuple[int, bytes], int], int] = {}
"""Where events end that were read, by history and number: who follows a long one reads on from there."""
NUMBERS = {
    "progress": ("step", "steps", "seconds_left", "pairs_per_second", "loss"),
    "validation": tuple(CHOSEN_BY),
}
"""What `progress` tells, by the kind of event that says it."""


def append_event(folder: Path, event: dict[str, Any]) -> None:
    """Adds an event, all of it in one write: those of several processes never mix.

    Raises:
        OSError: if the disk does not hold it.
    """
    line = json.dumps(event).encode() + b"\n"
    file = os.open(folder / EVENTS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, "The disk is full", str(folder / EVENTS))
    finally:
        os.close(file)


def read_events(folder: Path, after: int = 0, limit: int | None = None) -> Iterator[RunEvent]:
    """At most `limit` events with numbers above `after`, in order. A line still being written is not there yet."""
    try:
        file = (folder / EVENTS).open("rb")
    except FileNotFoundError:
        return
    with file:
        # Its place on the disk and the moment it began: another run's history may get the same place later.
        history = (os.fstat(file.fileno()).st_ino, os.pread(file.fileno(), 64, 0))
        known = _ends.get((history, after), 0)
        if known:
            file.seek(known)
        elif not _skip_lines(file, after):
            return
        last, end = after, known
        for event in islice(_events(file, after), limit):
            last, end = event.number, file.tell()
            yield event
        if end:
            if len(_ends) >= ENDS_KEPT:
                _ends.clear()
            _ends[history, last] = end


def events_from(folder: Path, position: int) -> Iterator[RunEvent]:
    """The events that begin at a byte of the file or after it, with no numbers of use; see `history_size`."""
    try:
        file = (folder / EVENTS).open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(position)
        yield from _events(file, 0)


def history_size(folder: Path) -> int:
    """Where the history ends now, in bytes."""
    try:
        return (folder / EVENTS).stat().st_size
    except FileNotFoundError:
        return 0


def last_events(folder: Path) -> list[RunEvent]:
    """The events in the last 64 KiB, newest first, without their numbers: the file is not read as a whole."""
    start = max(0, history_size(folder) - TAIL_BYTES)
    return list(events_from(folder, start))[::-1]  # a line that began before is cut, and so passed over


def progress(folder: Path) -> dict[str, float]:
    """The newest numbers of the stage at work; empty if it has told none."""
    found: dict[str, float] = {}
    for event in last_events(folder):
        if event.kind == "state":  # the stage at work began here
            break
        names = NUMBERS.get(event.kind, ())
        found = {name: event.values[name] for name in names if name in event.values} | found
    return found


def _events(file: BinaryIO, after: int) -> Iterator[RunEvent]:
    for number, line in enumerate(file, start=after + 1):
        if not line.endswith(b"\n"):
            return
        try:
            yield RunEvent(number=number, **json.loads(line))
        except (ValueError, TypeError):
            continue


def _skip_lines(file: BinaryIO, count: int) -> bool:
    """Moves to the end of that many lines, if there are so many. Counting by the block is far faster than reading lines."""
    while count:
        start = file.tell()
        block = file.read(BLOCK_BYTES)
        breaks = block.count(b"\n")
        if breaks >= count:
            end = -1
            for _ in range(count):
                end = block.index(b"\n", end + 1)
            file.seek(start + end + 1)
            return True
        if not block:
            return False
        count -= breaks
    return True
