"""A run, as its user holds it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attune.errors import RunCancelled, RunError, RunFailed
from client.display import examples_tables, metrics_table
from client.events import follow_events, get_events, get_run
from client.files import download_file, download_folder, read_file
from client.progress import TrainingBar, download_bar
from client.settings import check_count
from client.transport import Transport, call_one

if TYPE_CHECKING:
    from attune.schemas import FinetuningRun, RunEvent


class Run:
    """A run on a service. `AttuneClient.fit`, `evaluate` and `get_run` return it.

    Attributes:
        document: the run when it was last looked at; `refresh` looks again.
    """

    def __init__(self, transport: Transport, document: "FinetuningRun") -> None:
        self._transport = transport
        self.document = document

    def __repr__(self) -> str:
        return f"Run({self.reference!r}, {self.document.state})"

    @property
    def name(self) -> str:
        """Unique in its experiment."""
        return str(self.document.name)

    @property
    def reference(self) -> str:
        """How the run is named to the service: `experiment/name`, or `name` alone in the experiment `default`."""
        return str(self.document.reference)

    @property
    def config(self) -> dict[str, Any]:
        """The settings it was given; see `attune.settings.FinetuningSettings`."""
        return dict(self.document.settings)

    def refresh(self) -> "FinetuningRun":
        """The run as it is now."""
        self.document = get_run(self._transport, self.reference)
        return self.document

    def status(self) -> str:
        """CREATED, VALIDATING, TRAINING, EVALUATING, EXPORTING, FINISHED, FAILED or CANCELLED."""
        return str(self.refresh().state)

    def wait(self, progress: bool = True) -> "Run":
        """Returns when the run is finished.

        Args:
            progress: draws a progress bar if stderr is a terminal.

        Raises:
            RunFailed: if it ended in FAILED, with the reason.
            RunCancelled: if it was cancelled.
        """
        with TrainingBar(self.name, progress) as bar:
            for event in follow_events(self._transport, self.reference):
                bar.follow(event)
        state = self.status()
        if state == "FAILED":
            raise RunFailed(f"Run {self.reference!r} failed: {self.document.error}")
        if state == "CANCELLED":
            raise RunCancelled(f"Run {self.reference!r} was cancelled. Resume it to go on from its last checkpoint")
        return self

    def cancel(self) -> "Run":
        """Asks the service to end the run, and returns at once.

        A run that waits in the queue is CANCELLED then, one at work as soon as its step is done. Checkpoints are kept.

        Raises:
            RunError: if it is FINISHED or FAILED.
        """
        return self._change("/runs/cancel")

    def resume(self) -> "Run":
        """Queues the run again, to go on from its last checkpoint as if it had never stopped.

        Raises:
            RunError: if it is neither FAILED nor CANCELLED. A run that a crash of the service broke off goes on by itself.
        """
        return self._change("/runs/resume")

    def retry(self) -> "Run":
        """Queues the run again, to begin anew: its checkpoints and results are removed, its history stays.

        Raises:
            RunError: if it is neither FAILED nor CANCELLED.
        """
        return self._change("/runs/retry")

    def _change(self, endpoint: str) -> "Run":
        from attune.schemas import RunQuery

        self.document = call_one(self._transport, endpoint, [RunQuery(name=self.reference)])
        return self

    def evaluated(self) -> "FinetuningRun":
        """The run, once it is evaluated.

        Raises:
            RunError: if it is not.
        """
        run = self.document if self.document.evaluation.after else self.refresh()
        if not run.evaluation.after:
            raise RunError(self._not_yet("evaluation", "evaluated"))
        return run

    def logs(self, after: int = 0) -> str:
        """The lines of the run's history so far.

        Args:
            after: leaves out so many of the first lines.
        """
        return "\n".join(_line(event) for event in get_events(self._transport, self.reference, after))

    def stream_logs(self, after: int = 0) -> Iterator[str]:
        """The lines of the run's history, the coming ones as they are written, until the run is at an end.

        None is lost or repeated if the connection breaks or the service is restarted meanwhile.

        Args:
            after: leaves out so many of the first lines.
        """
        return (_line(event) for event in self.stream_events(after))

    def stream_events(self, after: int = 0) -> "Iterator[RunEvent]":
        """What `stream_logs` gives, as documents: with a number, a kind, and the figures by name.

        Args:
            after: number of the last event that was seen.
        """
        return follow_events(self._transport, self.reference, after)

    def metrics(self) -> dict[str, dict[str, float]]:
        """`before`, `after`, `difference`, `difference_low` and `difference_high` (its 95 % interval), each by metric.

        Of a run that only evaluated, `after` is the model and `before` the baseline; without one only `after` has figures.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        result = self.evaluated().evaluation
        difference = {name: result.after[name] - value for name, value in result.before.items()}
        return {
            "before": dict(result.before),
            "after": dict(result.after),
            "difference": difference,
            "difference_low": dict(result.difference_low),
            "difference_high": dict(result.difference_high),
        }

    def display_metrics(self) -> None:
        """Prints before, after and difference of every metric; of a model without a baseline, the metrics alone.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        Console().print(metrics_table(self.evaluated()))

    def example_results(self) -> list[dict[str, Any]]:
        """Queries on held-out pictures: `kind`, `query`, `rank_before`, `rank_after`, `hits_before`, `hits_after`.

        The `kind` is `random`, or `better` or `worse` for those that gained or lost most.
        A run that only evaluated a model, without a baseline, has no `rank_before` and `hits_before`.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        self.evaluated()
        found: list[dict[str, Any]] = json.loads(read_file(self._transport, self.reference, "report/examples.json"))
        return found

    def display_examples(self, k: int = 3) -> None:
        """Prints queries with their first hits before and after: at random, those that gained most, those that lost most.

        Args:
            k: queries of each kind, at most.

        Raises:
            SettingsError: if `k` is no whole number from 1 on.
            RunError: if the run is not evaluated yet.
        """
        from attune.evaluation.comparison import sides

        check_count("k", k)
        run = self.evaluated()
        Console().print(examples_tables(self.example_results(), sides(run), k, run.evaluation.kind))

    def report(self, to: str | Path | None = None) -> Path:
        """Downloads the evaluation's report: one HTML page that needs nothing else.

        Args:
            to: the file to write, or a folder for it; by default the run's name and `-report.html`, in the current folder.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        self.evaluated()
        place = Path("." if to is None else to)
        return self.download_file("report/index.html", place / f"{self.name}-report.html" if place.is_dir() else place)

    def save_artifact(self, directory: str | Path = "artifact", progress: bool = True) -> Path:
        """Downloads the tuned model, a folder that its library opens; its README.md says how.

        Files get there only when all are whole. A download that was broken off goes on where it was if it is made again.

        Args:
            directory: the folder to write; made if it is not there. It may hold nothing but an earlier try.
            progress: draws a progress bar if stderr is a terminal.

        Raises:
            RunError: if the run is not finished, trained nothing, or a file arrived damaged; or if the folder holds others.
        """
        if not self.refresh().settings.get("train_data"):
            raise RunError(
                f"Run {self.reference!r} has no artifact: "
                f"it measured {self.config.get('model')!r} as it is and trained nothing"
            )
        if self.document.state != "FINISHED":
            raise RunError(self._not_yet("artifact", "FINISHED"))
        artifact, folder = self.document.artifact, Path(directory)
        with download_bar(f"downloading {self.name}", sum(artifact.files.values()), progress) as bar:
            return download_folder(self._transport, self.reference, "artifact", artifact.checksums, folder, bar.advance)

    def download_file(self, path: str, to: str | Path) -> Path:
        """Downloads one file of the run folder.

        Args:
            path: relative to the run folder, such as ``report/examples.png``.
            to: the file to write.

        Raises:
            RunError: if it arrived damaged.
        """
        return download_file(self._transport, self.reference, path, Path(to))

    def _not_yet(self, what: str, when: str) -> str:
        if self.document.state == "FAILED":
            return f"Run {self.reference!r} has no {what}: it failed. {self.document.error}"
        return f"Run {self.reference!r} is {self.document.state}; its {what} is there once it is {when}"


def _line(event: "RunEvent") -> str:
    return f"{event.time} {event.message}"
