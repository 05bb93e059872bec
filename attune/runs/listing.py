"""All runs: found by experiment, state and name, page by page, and counted by experiment."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from attune.errors import RunError
from attune.names import reference_of
from attune.runs.folder import RunFolder, run_paths
from attune.schemas import Experiment, FinetuningRun, RunQuery


class Listed(NamedTuple):
    """What of a run a list is ordered and filtered by; runs that were created at one moment are in order of their names."""

    created_at: str
    experiment: str
    name: str
    state: str

    @property
    def reference(self) -> str:
        """How the run is named everywhere."""
        return reference_of(self.experiment, self.name)

    @property
    def folder(self) -> RunFolder:
        """Where the run is."""
        return RunFolder.open(self.reference)


def listed_runs() -> list[Listed]:
    """Every run, newest first."""
    return sorted(_listed(), reverse=True)


def find_runs(query: RunQuery) -> list[FinetuningRun]:
    """The runs that a query asks for, newest first: one page of them.

    Pages that follow each other, each after the last run of the page before, show every run once however many are added.

    Raises:
        RunNotFound: if the last run of the page before was deleted.
    """
    found = listed_runs()
    if query.after_run:
        before = RunFolder.open(query.after_run).load()
        found = [one for one in found if one[:3] < (before.created_at, before.experiment, before.name)]
    runs: list[FinetuningRun] = []
    for one in found:
        if len(runs) == query.limit:
            break
        if _is_meant(one, query):
            try:
                runs.append(one.folder.look())
            except RunError:  # deleted a moment ago
                continue
    return runs


def find_experiments(query: RunQuery) -> list[Experiment]:
    """What runs belong to, the one with the newest run first; one of them if the query names it."""
    found: dict[str, list[Listed]] = {}
    for one in listed_runs():
        if query.experiment in ("", one.experiment):
            found.setdefault(one.experiment, []).append(one)
    return [
        Experiment(
            name=name, runs=len(runs), states=dict(Counter(one.state for one in runs)), created_at=runs[-1].created_at
        )
        for name, runs in found.items()
    ]


def _is_meant(one: Listed, query: RunQuery) -> bool:
    return (
        query.experiment in ("", one.experiment)
        and (not query.states or one.state in query.states)
        and query.name.lower() in one.name.lower()
    )


def _listed() -> Iterator[Listed]:
    for path in run_paths():
        file = path / "run.json"
        try:
            status = file.stat()
            yield _read(file, status.st_ino, status.st_mtime_ns, status.st_size)
        except (FileNotFoundError, ValueError):  # deleted a moment ago, or damaged: asked for by name, it says so
            continue


@lru_cache(maxsize=100_000)
def _read(file: Path, *_: int) -> Listed:
    """A run's place in lists. The numbers tell one content of the file from the next: it is read once for each."""
    run = FinetuningRun.model_validate_json(file.read_text(encoding="utf-8"))
    return Listed(run.created_at, run.experiment, run.name, run.state)
