"""The run folder: one folder per run, which explains and reproduces itself. It is `runs/EXPERIMENT/NAME`.

run.json         the `FinetuningRun`, replaced as a whole at every change
environment.json versions, hardware and git commit, written when the run is created
events.jsonl     its history, one JSON object a line, only ever appended to
checkpoints/     weights: at the start, best, chosen; and what an unfinished training goes on from
loggers/         what the loggers among a run's callbacks write
report/          evaluation: all figures, the page, its plots and examples
artifact/        the exported model
.cancel          there while the run is to be cancelled
"""

import json
import math
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attune.characters import shortened
from attune.choices import did_you_mean
from attune.environment import describe_environment
from attune.errors import RunError, RunExists, RunNotFound
from attune.files import is_disk_full, locked, locked_now, write_text
from attune.home import home
from attune.names import check_name, is_name, parse_reference, reference_of
from attune.runs.events import append_event, last_events, progress, read_events
from attune.runs.reserve import spend_reserve, take_reserve
from attune.schemas import END_STATES, FinetuningRun, RunEvent
from attune.service.storage import check_room

NAMES_SHOWN = 20
LONGEST_DESCRIPTION, LONGEST_REQUEST = 10_000, 200
"""Characters."""


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def runs_folder() -> Path:
    """Where all run folders are, by experiment."""
    return home() / "runs"


def run_paths() -> Iterator[Path]:
    """The folder of every run, in no order. Links are not followed."""
    for experiment in _folders(runs_folder()):
        yield from _folders(experiment)


def new_run(run: FinetuningRun) -> FinetuningRun:
    """A run as it begins: only what was asked for is kept, results and state are never taken from outside."""
    asked = {key: getattr(run, key) for key in ("name", "experiment", "description", "settings", "request")}
    created_at = now()
    return FinetuningRun(**asked, created_at=created_at, queued_at=created_at)


class RunFolder:
    """One run on disk. Several processes may hold one at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.start_weights = self.checkpoints / "start.safetensors"
        self.chosen_weights = self.checkpoints / "chosen.safetensors"
        self.loggers = path / "loggers"
        self.report = path / "report"
        self.artifact = path / "artifact"
        self.cancel_mark = path / ".cancel"

    @property
    def reference(self) -> str:
        """How the run is named everywhere: `experiment/name`, or `name` alone in the experiment `default`."""
        return reference_of(self.path.parent.name, self.path.name)

    @classmethod
    def create(cls, run: FinetuningRun) -> "RunFolder":
        """A new folder for a new run.

        Raises:
            RunError: if its name or its experiment's cannot be one, or its description is too long.
            StorageFull: if there is no room for anything more.
            RunExists: if the experiment has a run of that name.
        """
        path = runs_folder()
        for field, name in (("experiment_name", run.experiment), ("run_name", run.name)):
            try:
                path = path / check_name(name)
            except ValueError as error:
                raise RunError(f"{field} = {name!r} {error}") from error
        for field, most in (("description", LONGEST_DESCRIPTION), ("request", LONGEST_REQUEST)):
            if len(text := getattr(run, field)) > most:
                raise RunError(f"{field} has {len(text):,} characters, and {most:,} is the most. Shorten it")
        check_room(0, f"The run {reference_of(run.experiment, run.name)!r}")
        environment = json.dumps(describe_environment(), indent=2)
        draft = cls(path.with_name(f".{run.name}.{secrets.token_hex(4)}"))
        draft.path.mkdir(parents=True)
        try:
            write_text(draft.path / "environment.json", environment)
            take_reserve(draft.path)
            draft._save(new_run(run))
            draft.path.rename(path)  # all of it or nothing; fails if a run is there
        except OSError as error:
            shutil.rmtree(draft.path, ignore_errors=True)
            if not path.exists():
                raise  # a full disk, for one
            raise RunExists(
                f"A run named {run.reference!r} exists already. Choose another name, or give none to get a new one"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, reference: str) -> "RunFolder":
        """The folder of an existing run.

        Args:
            reference: `experiment/name`, or `name` alone for the experiment `default`.

        Raises:
            RunNotFound: if there is none; the message names others.
        """
        try:
            path = runs_folder().joinpath(*parse_reference(reference))
        except ValueError:
            raise _not_found(reference) from None
        if path.resolve() != path or not (path / "run.json").is_file():  # a link could lead anywhere
            raise _not_found(reference)
        return cls(path)

    def load(self) -> FinetuningRun:
        """The run as it is now.

        Raises:
            RunNotFound: if it was deleted meanwhile.
            RunError: if its file is damaged.
        """
        try:
            run: FinetuningRun = FinetuningRun.model_validate_json((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunNotFound(f"There is no run named {self.reference!r} any more: it was deleted") from None
        except ValueError as error:
            raise RunError(f"Run {self.reference!r} cannot be read: {self.path / 'run.json'} is damaged") from error
        return run

    def look(self) -> FinetuningRun:
        """The run as it is now, with the progress of the stage at work."""
        run = self.load()
        if run.state not in ("CREATED", *END_STATES):
            run.progress = progress(self.path)
        return run

    def update(self, change: Callable[[FinetuningRun], None]) -> FinetuningRun:
        """Reads the run, applies `change` to it in place and saves it, with no other writer in between."""
        with self.locked("run"):
            run = self.load()
            change(run)
            self._save(run)
        return run

    def set_state(self, state: str, message: str = "", **fields: Any) -> FinetuningRun:
        """Moves the run to a state, says so in its history, and sets other fields with it.

        The history is told first, so that who sees a state has seen all events before it. Killed in between and done again,
        it is told once. An end is told and kept even where the disk is full: a run holds a little of it for that.
        """

        def change(run: FinetuningRun) -> None:
            line = message or f"state {state}"
            said = next((event.message for event in last_events(self.path) if event.kind == "state"), "")
            if said != line and (said or run.state != state):
                self.log(line, kind="state")
            for field, value in {"state": state, **fields}.items():
                setattr(run, field, value)

        try:
            run = self.update(change)
        except OSError as error:
            if state not in END_STATES or not is_disk_full(error):
                raise
            spend_reserve(self.path)
            run = self.update(change)
        if state in END_STATES:
            spend_reserve(self.path)
        return run

    def log(self, message: str, kind: str = "log", **values: float) -> None:
        """Appends one event. Numbers that are not finite are left out: JSON has none."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        append_event(self.path, {"time": now(), "kind": kind, "message": message, "values": finite})

    def events(self, after: int = 0, limit: int | None = None) -> Iterator[RunEvent]:
        """At most `limit` events with numbers above `after`, in order. A line still being written is not there yet."""
        return read_events(self.path, after, limit)

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Waits until no other process holds the lock named `what`; it is freed even if this process is killed."""
        with locked(self.path / f".{what}.lock"):
            yield

    @contextmanager
    def locked_now(self, what: str) -> Iterator[bool]:
        """Takes the lock named `what` if nobody holds it; yields whether it did."""
        with locked_now(self.path / f".{what}.lock") as taken:
            yield taken

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's wall-clock seconds to the run, under the stage's name."""
        start = time.monotonic()
        yield
        seconds = round(time.monotonic() - start, 3)
        self.update(lambda run: run.stage_seconds.update({stage: seconds}))

    def _save(self, run: FinetuningRun) -> None:
        write_text(self.path / "run.json", run.model_dump_json(indent=2, exclude={"position", "progress"}))


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))


def _folders(path: Path) -> Iterator[Path]:
    """Folders in a folder whose names are names: drafts and what is being removed begin with a dot."""
    if path.is_dir():
        yield from (entry for entry in path.iterdir() if is_name(entry.name) and entry.is_dir() and not entry.is_symlink())


def _not_found(reference: str) -> RunNotFound:
    known = sorted(reference_of(path.parent.name, path.name) for path in run_paths())
    more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return RunNotFound(
        f"There is no run named {shortened(reference)!r}{did_you_mean(reference, known)}. "
        f"Runs: {', '.join(known[:NAMES_SHOWN]) or 'none yet'}{more}"
    )
