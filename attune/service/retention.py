"""What is removed after its time, so that a service can run for years: `sweep`, to be called every hour or so.

Every rule waits until nobody can want the thing any more, and looks twice where somebody may take it up at that moment.
Ages are of the last change. Nothing of a run that is not at an end is touched, nor what it refers to.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from attune.data import store
from attune.errors import RunError, RunNotFound
from attune.files import locked_now
from attune.home import home
from attune.runs.folder import RunFolder, run_paths, runs_folder
from attune.schemas import END_STATES, FinetuningRun
from attune.service.settings import service_settings

HOUR = 3600.0
DAY = 24 * HOUR
GRACE = HOUR
"""Seconds after which a draft has no writer any more, and a dataset that nothing refers to is in nobody's hands."""
GOES_ON_FROM = ("last.pt", "within.pt", "best.safetensors")
"""Of use to an unfinished training only. The start's and the chosen weights stay: figures are measured again from them."""
OPTIMIZER = "optimizer.safetensors"
"""Of use to runs that continue this one with its optimizer's state."""
UNUSED = ".unused"
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")


class Swept(NamedTuple):
    """What `sweep` removed.

    Attributes:
        removed: paths below `ATTUNE_HOME`.
        bytes: that are free now.
    """

    removed: list[str]
    bytes: int


def sweep(now: float | None = None) -> Swept:
    """Removes what has outlived its use, and returns what it was.

    - pushes that nobody went on with for `keep_uploads_hours`;
    - of finished runs, what a training goes on from; of others at an end, after `keep_checkpoints_days`; and after as long
      the optimizer's state of finished runs;
    - drafts of killed processes, an hour old;
    - pixels of datasets that no name and no unfinished run refers to, an hour after they were last opened;
    - contents that no name and no run refers to, an hour after that was first seen. A finished run keeps its data: it
      would be measured, and made again, from it.

    Args:
        now: seconds since 1970, UTC; the time by default.
    """
    now = time.time() if now is None else now
    paths = [*_from_runs(now), *_old_drafts(_outside_of_runs(), now), *_from_datasets(now)]
    removed, total = [], 0
    for path, size in paths:
        removed.append(str(path.relative_to(home())))
        total += size
    return Swept(removed, total)


def _from_runs(now: float) -> Iterator[tuple[Path, int]]:
    for path in run_paths():
        folder = RunFolder(path)
        # Deleted meanwhile, or not readable: whoever looks after the service will want to see that one.
        with suppress(OSError, RunError), folder.locked_now("stage") as free:
            run = folder.load()
            if free and run.state in END_STATES:
                yield from _of_run(folder, run, now)


def _of_run(folder: RunFolder, run: FinetuningRun, now: float) -> Iterator[tuple[Path, int]]:
    old = now - datetime.fromisoformat(run.finished_at).timestamp() > service_settings().keep_checkpoints_days * DAY
    names = GOES_ON_FROM * (old or run.state == "FINISHED") + (OPTIMIZER,) * old
    yield from _remove(folder.checkpoints / name for name in names)
    yield from _old_drafts(_below(folder.path), now)


def _outside_of_runs() -> Iterator[Path]:
    yield from runs_folder().glob("*/.*")
    yield from _below(home() / "datasets")


def _old_drafts(paths: Iterable[Path], now: float) -> Iterator[tuple[Path, int]]:
    drafts = [path for path in paths if _DRAFT.fullmatch(path.name)]
    yield from _remove(path for path in drafts if now - _changed(path) > GRACE)


def _from_datasets(now: float) -> Iterator[tuple[Path, int]]:
    datasets = home() / "datasets"
    hours = service_settings().keep_uploads_hours
    for upload in (datasets / "uploads").glob("[!.]*"):
        if now - _changed(upload) > hours * HOUR:
            with suppress(OSError):
                aside = upload.rename(upload.with_name(f".{upload.name}.{token_hex(4)}"))
                if now - _changed(aside) > hours * HOUR:  # nobody wrote between the look and the new name
                    yield from _remove([aside], upload)
                else:
                    aside.rename(upload)
    if not datasets.is_dir():
        return
    with store.changing_datasets():
        try:
            named, at_work, ended = _references()
        except RunError:  # a run that cannot be read may refer to anything
            return
        for content in (datasets / "content").glob("[!.]*"):
            if content.name not in named | at_work:
                yield from _old_pixels(content, now)
            if content.name in named | at_work | ended:
                (content / UNUSED).unlink(missing_ok=True)
            elif not (content / UNUSED).exists():
                (content / UNUSED).touch()
                os.utime(content / UNUSED, (now, now))
            elif now - (content / UNUSED).stat().st_mtime > GRACE:
                yield from _remove([content.rename(content.with_name(f".{content.name}.{token_hex(4)}"))], content)


def _references() -> tuple[set[str], set[str], set[str]]:
    """Fingerprints that names point to, that unfinished runs refer to, and that runs at an end refer to."""
    pointers = (store.read_pointer(path.stem) for path in (home() / "datasets").glob("*.json"))
    named = {pointer.fingerprint for pointer in pointers if pointer is not None}
    at_work, ended = set[str](), set[str]()
    for path in run_paths():
        with suppress(RunNotFound):
            run = RunFolder(path).load()
            (ended if run.state in END_STATES else at_work).update(run.data_fingerprints)
    return named, at_work, ended


def _old_pixels(content: Path, now: float) -> Iterator[tuple[Path, int]]:
    for pixels in content.glob("pixels-*.npy"):
        with locked_now(pixels.with_suffix(".lock")) as free:
            if free and now - _changed(pixels) > GRACE:
                yield from _remove([pixels, pixels.with_suffix(".json")])


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder, in its folders and so on, but for what vanishes meanwhile; links are not followed."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was last changed; never if it is gone."""
    times = [0.0]
    for one in (path, *_below(path)):
        with suppress(OSError):
            times.append(one.lstat().st_mtime)
    return max(times)


def _remove(paths: Iterable[Path], name: Path | None = None) -> Iterator[tuple[Path, int]]:
    """Removes what of this is there; yields each path, or the name it had before, with the bytes that are free now."""
    for path in paths:
        if not os.path.lexists(path):
            continue
        size = sum(map(_freed, (path, *_below(path))))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        yield name or path, size


def _freed(path: Path) -> int:
    """Bytes on the disk that go with a file: none if it has other names."""
    try:
        status = path.lstat()
    except OSError:  # gone meanwhile
        return 0
    return status.st_blocks * 512 if status.st_nlink == 1 else 0
