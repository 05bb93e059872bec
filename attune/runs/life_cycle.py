"""What may be done with a run from outside: cancel it, go on with it, start it again, remove it.

To cancel is to leave a mark in the run folder, which outlives every process. Whoever works on the run ends when it sees it
(`attune.__main__`); the run is CANCELLED once nobody works on it any more.
"""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attune.config import check_settings
from attune.environment import describe_environment
from attune.errors import RunCancelled, RunError, RunExists, RunFailed, RunNotFound
from attune.files import disk_may_fill, write_text
from attune.names import DEFAULT_EXPERIMENT, is_name
from attune.runs.folder import RunFolder, new_run, now, read_json, runs_folder
from attune.runs.reserve import take_reserve
from attune.schemas import END_STATES, FinetuningRun, RunEvent

RESULTS = ("checkpoints", "loggers", "report", "artifact", ".artifact")
TRIED_AGAIN = "tried again from the beginning: earlier results and checkpoints are removed"


def submit(run: FinetuningRun) -> RunFolder:
    """A new run's folder; that of the run which an earlier try of the same request has made, if there is one.

    Raises:
        RunError: if it cannot be called so.
        RunExists: if the name is taken by another run.
    """
    try:
        return RunFolder.create(run)
    except RunExists:
        made = same_request(run)
        if made is None:
            raise
        return made


def same_request(run: FinetuningRun) -> RunFolder | None:
    """The run that an earlier try of the same request has made: its answer was lost, or the request came twice."""
    try:
        folder = RunFolder.open(run.reference)
    except RunNotFound:
        return None
    return folder if run.request and folder.load().request == run.request else None


def posted(run: FinetuningRun) -> RunFolder:
    """The folder of a run that is posted to its stages: one the service told of, or a new one, made when it first comes.

    Raises:
        RunError: if it cannot be called so.
        RunExists: if the name is taken by a run with other settings, whose figures are no answer to this request.
        RunNotFound: if it was there and is not any more: a deleted run is not made again by a late request.
    """
    if run.created_at:
        return RunFolder.open(run.reference)
    try:
        return submit(run)
    except RunExists:
        folder = RunFolder.open(run.reference)
        if _asked(run) != _asked(folder.load()):
            raise
        return folder


def cancel(folder: RunFolder) -> FinetuningRun:
    """Asks for a run's end: it is CANCELLED at once if nobody works on it, else as soon as the stage at work has stopped.

    Raises:
        RunError: if it is FINISHED or FAILED.
    """
    run = folder.load()
    if run.state in ("FINISHED", "FAILED"):
        raise RunError(f"Run {folder.reference!r} cannot be cancelled: it is {run.state}")
    if run.state != "CANCELLED":
        with suppress(FileExistsError):
            folder.cancel_mark.touch(exist_ok=False)
            folder.log("asked to cancel")
        end_cancelled(folder)
    return folder.load()


def end_cancelled(folder: RunFolder) -> None:
    """Ends a run in CANCELLED if that was asked for and nobody works on it; a run at an end stays as it is."""
    if not folder.cancel_mark.exists():
        return
    with folder.locked_now("stage") as free:
        if free:
            if folder.load().state not in END_STATES:
                folder.set_state("CANCELLED", finished_at=now())
            folder.cancel_mark.unlink(missing_ok=True)


def check_goes_on(folder: RunFolder) -> None:
    """Passes if a stage may begin.

    Raises:
        RunCancelled: if the run was cancelled, or is to be.
        RunFailed: if it FAILED.
    """
    run = folder.load()
    if run.state == "FAILED":
        raise RunFailed(f"Run {folder.reference!r} failed: {run.error}")
    if run.state == "CANCELLED" or folder.cancel_mark.exists():
        raise RunCancelled(f"Run {folder.reference!r} was cancelled. Resume it to go on from its last checkpoint")


def fail(folder: RunFolder, message: str) -> None:
    """Ends a run in FAILED, with the reason in the run and in its history. For the process that works on it.

    A run that is to be cancelled does not fail of it, and one at an end stays there.
    """
    if folder.load().state not in END_STATES and not folder.cancel_mark.exists():
        folder.set_state("FAILED", f"FAILED: {message}", error=message, finished_at=now())


def end_failed(folder: RunFolder, message: str) -> None:
    """Ends a run in FAILED unless a process works on it: whoever saw a failure may not be the only one to have tried."""
    with folder.locked_now("stage") as free:
        if free:
            fail(folder, message)


def last_attempt(folder: RunFolder) -> list[RunEvent]:
    """The run's events since it was last tried again from the beginning; all of them if it never was."""
    events = list(folder.events())
    began = (number for number in range(len(events), 0, -1) if events[number - 1].message == TRIED_AGAIN)
    return events[next(began, 0) :]


def resume(folder: RunFolder) -> FinetuningRun:
    """Puts a run that FAILED or was CANCELLED back into the queue; it goes on from its last checkpoint.

    Raises:
        RunError: if it is in another state.
    """
    with _stopped(folder, "resumed", ("FAILED", "CANCELLED")):
        return _queue_again(folder, "resumed: goes on from its last checkpoint")


def retry(folder: RunFolder) -> FinetuningRun:
    """Puts a run that FAILED or was CANCELLED back into the queue, to begin anew; only its history stays.

    Raises:
        RunError: if it is in another state.
    """
    with _stopped(folder, "tried again", ("FAILED", "CANCELLED")):
        # In this order, so that no moment has results without their files: killed in between, the run is still at an end.
        environment = json.dumps(describe_environment(), indent=2)
        folder.update(_forget_results)
        for name in RESULTS:
            _remove(folder.path / name)
        write_text(folder.path / "environment.json", environment)
        return _queue_again(folder, TRIED_AGAIN)


def delete(folder: RunFolder) -> FinetuningRun:
    """Removes a run that is at an end, or has not begun, and returns what it was.

    Raises:
        RunError: if it is in another state.
    """
    with _stopped(folder, "deleted", ("CREATED", *END_STATES)) as run:
        with folder.locked("run"):  # who waits to change the run finds none
            removed = _set_aside(folder.path)
        shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):  # the experiment has other runs
        folder.path.parent.rmdir()
    return run


def tidy() -> None:
    """Removes what killed processes left half made or half removed, and moves runs of the layout before experiments.

    For the start of a service, before anything else is done with runs.
    """
    runs = runs_folder()
    for file in [file for file in runs.glob("*/run.json") if is_name(file.parent.name) and file.is_file()]:
        file.parent.rename(runs / f".moved.{file.parent.name}")  # its own name may be that of an experiment
    for path in runs.glob(".moved.*"):
        _move_into_experiment(path)
    for path in runs.glob("*/.*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in runs.glob("*/*/.removed.*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _stopped(folder: RunFolder, done: str, states: tuple[str, ...]) -> Iterator[FinetuningRun]:
    """The run, if it is in one of the states and nobody works on it; nobody begins to while the block runs."""
    with folder.locked_now("stage") as free:
        run = folder.load()
        if run.state not in states or not free:
            at = f"it is {run.state}" if run.state not in states else "a process is still at work on it"
            raise RunError(f"Run {folder.reference!r} cannot be {done}: {at}. Only {' or '.join(states)} runs can")
        yield run


def _move_into_experiment(path: Path) -> None:
    run = read_json(path / "run.json")
    if not is_name(run["experiment"]):  # it was free text once
        run["experiment"] = DEFAULT_EXPERIMENT
    experiment = runs_folder() / run["experiment"]
    if (experiment / run["name"]).exists():
        run["name"] = f"{run['name'][:90]}-{secrets.token_hex(4)}"
    write_text(path / "run.json", json.dumps(run, indent=2))
    experiment.mkdir(exist_ok=True)
    path.rename(experiment / run["name"])


def _asked(run: FinetuningRun) -> dict[str, Any]:
    """A run's settings with every default, the same whether it was validated or not."""
    return check_settings(run.settings).model_dump(exclude={"model_artifact"})  # which is `model` as well


def _queue_again(folder: RunFolder, message: str) -> FinetuningRun:
    with disk_may_fill(f"the run {folder.reference!r}"):
        take_reserve(folder.path)
    folder.cancel_mark.unlink(missing_ok=True)
    return folder.set_state("CREATED", message, error="", finished_at="", queued_at=now())


def _forget_results(run: FinetuningRun) -> None:
    begun = new_run(run)
    kept = {"id", "state", "error", "created_at", "finished_at"}
    for field in FinetuningRun.model_fields.keys() - kept:
        setattr(run, field, getattr(begun, field))


def _set_aside(path: Path) -> Path:
    """Gives it a name that is no run's: from then on it is gone, whether or not its removal comes to an end."""
    return path.rename(path.with_name(f".removed.{path.name}.{secrets.token_hex(4)}"))


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(_set_aside(path), ignore_errors=True)
