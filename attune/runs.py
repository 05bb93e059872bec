"""The run folder: one folder per run, which explains and reproduces itself.

run.json         the `FinetuningRun`, replaced as a whole at every change
environment.json versions, hardware and git commit, written when the run is created
events.jsonl     its history, one JSON object a line, only ever appended to
checkpoints/     weights: at the start, best, chosen; and what an unfinished training goes on from
report/          evaluation: all figures, the page, its plots and examples
artifact/        the exported model
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

from attune.environment import describe_environment
from attune.errors import RunError, RunExists, RunNotFound
from attune.files import locked, sha256, write_text
from attune.home import home
from attune.names import check_name, is_name
from attune.schemas import FileChunk, FinetuningRun, RunEvent


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def runs_folder() -> Path:
    """Where all run folders are."""
    return home() / "runs"


class RunFolder:
    """One run on disk. Several processes may hold one at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.start_weights = self.checkpoints / "start.safetensors"
        self.chosen_weights = self.checkpoints / "chosen.safetensors"
        self.report = path / "report"
        self.artifact = path / "artifact"

    @classmethod
    def create(cls, run: FinetuningRun) -> "RunFolder":
        """A new folder for a new run.

        Raises:
            RunExists: if the name is taken.
        """
        try:
            path = runs_folder() / check_name(run.name)
        except ValueError as error:
            raise RunError(f"run_name = {run.name!r} {error}") from error
        draft = cls(path.with_name(f".{run.name}.{secrets.token_hex(4)}"))
        draft.path.mkdir(parents=True)
        write_text(draft.path / "environment.json", json.dumps(describe_environment(), indent=2))
        # Only what was asked for: results and state are never taken from outside.
        asked = {key: getattr(run, key) for key in ("name", "experiment", "description", "settings")}
        draft._save(FinetuningRun(**asked, created_at=now()))
        try:
            draft.path.rename(path)  # all of it or nothing; fails if a run is there
        except OSError as error:
            shutil.rmtree(draft.path)
            raise RunExists(
                f"A run named {run.name!r} exists already. Choose another run_name, or leave it out to get a new one"
            ) from error
        return cls(path)

    @classmethod
    def open_or_create(cls, run: FinetuningRun) -> "RunFolder":
        """The folder of the run of that name; a new one if there is none yet."""
        try:
            return cls.open(run.name)
        except RunNotFound:
            return cls.create(run)

    @classmethod
    def open(cls, name: str) -> "RunFolder":
        """The folder of an existing run.

        Raises:
            RunNotFound: if there is none; the message names near ones.
        """
        path = runs_folder() / name
        if not is_name(name) or not (path / "run.json").is_file():
            known = sorted(folder.path.name for folder in all_runs())
            raise RunNotFound(f"There is no run named {name!r}. Runs: {', '.join(known) or 'none yet'}")
        return cls(path)

    def load(self) -> FinetuningRun:
        """The run as it is now."""
        run: FinetuningRun = FinetuningRun.model_validate_json((self.path / "run.json").read_text(encoding="utf-8"))
        return run

    def update(self, change: Callable[[FinetuningRun], None]) -> FinetuningRun:
        """Reads the run, applies `change` to it in place and saves it, with no other writer in between."""
        with self.locked("run"):
            run = self.load()
            change(run)
            self._save(run)
        return run

    def set_state(self, state: str, message: str = "") -> FinetuningRun:
        """Moves the run to a state and says so in its history; a state it is in already is left alone."""
        before = self.load().state
        run = self.update(lambda run: setattr(run, "state", state))
        if before != state:
            self.log(message or f"state {state}", kind="state")
        return run

    def log(self, message: str, kind: str = "log", **values: float) -> None:
        """Appends one event. Numbers that are not finite are left out: JSON has none."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line = json.dumps({"time": now(), "kind": kind, "message": message, "values": finite}) + "\n"
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)

    def events(self, after: int = 0, limit: int | None = None) -> Iterator[RunEvent]:
        """Events with numbers above `after`, in order. A line still being written is not there yet."""
        path = self.path / "events.jsonl"
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n") or (limit is not None and number > after + limit):
                    return
                if number > after:
                    yield RunEvent(number=number, **json.loads(line))

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Waits until no other process holds the lock named `what`; it is freed even if this process is killed."""
        with locked(self.path / f".{what}.lock"):
            yield

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's wall-clock seconds to the run, under the stage's name."""
        start = time.monotonic()
        yield
        seconds = round(time.monotonic() - start, 3)
        self.update(lambda run: run.stage_seconds.update({stage: seconds}))

    def _save(self, run: FinetuningRun) -> None:
        write_text(self.path / "run.json", run.model_dump_json(indent=2))


def all_runs() -> list[RunFolder]:
    """Every run folder, newest first."""
    found = [RunFolder(path.parent) for path in runs_folder().glob("*/run.json")]
    return sorted(found, key=lambda folder: folder.load().created_at, reverse=True)


CHUNK_BYTES = 4 * 1024 * 1024


def read_chunk(chunk: FileChunk) -> FileChunk:
    """A piece of a file of a run: `data` from `offset` on, the size and checksum of the whole.

    Args:
        chunk: run, path within the run folder, and offset.

    Raises:
        RunNotFound: if there is no such run.
        RunError: if the run folder has no such file.
    """
    folder = RunFolder.open(chunk.run).path
    path = (folder / chunk.path).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise RunError(f"Run {chunk.run!r} has no file {chunk.path!r}")
    with path.open("rb") as file:
        file.seek(chunk.offset)
        data = file.read(CHUNK_BYTES)
    checksum = sha256(path) if chunk.offset == 0 else ""  # of a large file it takes seconds: once is enough
    return FileChunk(
        run=chunk.run, path=chunk.path, offset=chunk.offset, data=data, total=path.stat().st_size, sha256=checksum
    )


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))
