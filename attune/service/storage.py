"""What is kept on disk: how much it is, whether more may be put there, and what is removed after its time.

A disk that is full loses nothing that is there: files are written beside their place (`attune.files.whole_file`). But it
ends the run that wanted to write, so what needs much room asks for it first.
"""

import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator
from os import DirEntry, scandir
from pathlib import Path
from threading import Lock

from attune.errors import StorageFull
from attune.figures import say_size
from attune.home import home
from attune.schemas import StorageReport
from attune.service.settings import service_settings

LEAST_AGE = 2.0
"""Seconds for which a count of the disk's use is good."""
LARGEST_SHARE = 0.05
"""Of the time that may go into counting: where it takes long, it is done less often."""
RESERVE = 10**9
"""Bytes of the disk that no run and no push may take, so that histories can be written to their end; on small disks it is
a fiftieth of them."""

_last: dict[Path, tuple[float, StorageReport]] = {}
_taken = Counter[Path]()
"""Bytes that were granted since the last count."""
_counting = Lock()


def report() -> StorageReport:
    """What `ATTUNE_HOME` holds by kind, in bytes on the disk; some seconds old at most, more where counting takes long.

    Files that are links to one another count once: those of a push, whose batches became a dataset, with the dataset.
    """
    folder = home()
    with _counting:
        good_until, found = _last.get(folder, (0.0, None))
        if found is None or time.monotonic() >= good_until:
            start = time.monotonic()
            _taken[folder] = 0
            found = _count(folder)
            now = time.monotonic()
            _last[folder] = now + max(LEAST_AGE, (now - start) / LARGEST_SHARE), found
    full: StorageReport = found.model_copy(update={"quota": service_settings().disk_quota, "free": _disk(folder)[1]})
    return full


def check_room(needed_bytes: int, what: str, taken: bool = False) -> None:
    """Passes if so much more fits on the disk and into the quota.

    Args:
        needed_bytes: how much is going to be written; 0 asks whether there is any room left.
        what: what for, as in `"the run 'my-run'"`; begins the message.
        taken: it is written at once, and counts for those who ask before the disk's use is counted again.

    Raises:
        StorageFull: with the numbers, and what to do.
    """
    size, free = _disk(home())
    left = free - min(RESERVE, size // 50)
    if needed_bytes > left:
        raise StorageFull(
            f"{what} needs {say_size(needed_bytes)} on the disk of {home()}, which has {say_size(max(0, left))} left of "
            f"{say_size(size)}. {_ADVICE}"
        )
    found = report()
    used = found.runs + found.datasets + found.uploads + found.indexes + _taken[home()]
    if found.quota and used + needed_bytes > found.quota:
        raise StorageFull(
            f"{what} needs {say_size(needed_bytes)}, and {say_size(used)} of the {say_size(found.quota)} that "
            f"ATTUNE_DISK_QUOTA allows are taken (runs {say_size(found.runs)}, datasets {say_size(found.datasets)}, "
            f"uploads {say_size(found.uploads)}, indexes {say_size(found.indexes)}). {_ADVICE}, or raise the quota"
        )
    if taken:
        _taken[home()] += needed_bytes


_ADVICE = "Delete runs or datasets that are no longer needed"


def _disk(folder: Path) -> tuple[int, int]:
    """Size of the disk that the folder is on, or will be, and what is free of it."""
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def _count(folder: Path) -> StorageReport:
    seen: set[tuple[int, int]] = set()
    datasets = folder / "datasets"
    return StorageReport(  # uploads last: what they share with datasets is the datasets'
        runs=_bytes(folder / "runs", seen),
        datasets=_bytes(datasets, seen, without=datasets / "uploads"),
        indexes=_bytes(folder / "index", seen),
        uploads=_bytes(datasets / "uploads", seen),
    )


def _bytes(folder: Path, seen: set[tuple[int, int]], without: Path | None = None) -> int:
    """Bytes on the disk of all files below a folder that were not seen before."""
    total = 0
    for entry in _files(folder, without):
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:  # gone since
            continue
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            if status.st_nlink > 1:
                seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def _files(folder: Path, without: Path | None = None) -> Iterator[DirEntry[str]]:
    """Everything below a folder that is no folder; links are not followed, and folders that vanish meanwhile are empty."""
    folders = [str(folder)]
    while folders:
        try:
            with scandir(folders.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                    elif without is None or entry.path != str(without):
                        folders.append(entry.path)
        except OSError:
            continue
