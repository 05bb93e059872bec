"""A run, as its user holds it."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attune.errors import RunError, RunFailed
from client.display import examples_table, metrics_table
from client.events import follow_events, get_events, get_run
from client.files import download_file, read_file
from client.progress import TrainingBar, download_bar
from client.transport import Transport

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
        return f"Run({self.name!r}, {self.document.state})"

    @property
    def name(self) -> str:
        """Unique on the service."""
        return str(self.document.name)

    @property
    def config(self) -> dict[str, Any]:
        """The settings it was given; see `attune.settings.FinetuningSettings`."""
        return dict(self.document.settings)

    def refresh(self) -> "FinetuningRun":
        """The run as it is now."""
        self.document = get_run(self._transport, self.name)
        return self.document

    def status(self) -> str:
        """CREATED, VALIDATING, TRAINING, EVALUATING, EXPORTING, FINISHED or FAILED."""
        return str(self.refresh().state)

    def wait(self, progress: bool = True) -> "Run":
        """Returns when the run is finished.

        Args:
            progress: draws a progress bar if stderr is a terminal.

        Raises:
            RunFailed: if it ended in FAILED, with the reason.
        """
        with TrainingBar(self.name, progress) as bar:
            for event in follow_events(self._transport, self.name):
                bar.follow(event)
        if self.status() == "FAILED":
            raise RunFailed(f"Run {self.name!r} failed: {self.document.error}")
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

    def logs(self) -> str:
        """All lines of the run's history so far."""
        return "\n".join(_line(event) for event in get_events(self._transport, self.name))

    def stream_logs(self) -> Iterator[str]:
        """Every line of the run's history, the coming ones as they are written, until the run is at an end."""
        return (_line(event) for event in follow_events(self._transport, self.name))

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
        """Queries on held-out pictures: `query`, `rank_before`, `rank_after`, `hits_before`, `hits_after`.

        A run that only evaluated a model, without a baseline, has no `rank_before` and `hits_before`.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        self.evaluated()
        found: list[dict[str, Any]] = json.loads(read_file(self._transport, self.name, "report/examples.json"))
        return found

    def display_examples(self, k: int = 5) -> None:
        """Prints queries with their first hits before and after.

        Args:
            k: queries to print.
        """
        Console().print(examples_table(self.example_results()[:k]))

    def report(self, to: str | Path | None = None) -> Path:
        """Downloads the evaluation's report: one HTML page that needs nothing else.

        Args:
            to: the file to write; by default the run's name and `-report.html`, in the current folder.

        Raises:
            RunError: if the run is not evaluated yet.
        """
        self.evaluated()
        return self.download_file("report/index.html", to or f"{self.name}-report.html")

    def save_artifact(self, directory: str | Path = "artifact", progress: bool = True) -> Path:
        """Downloads the tuned model, a folder that open_clip opens. Files get there only when all are whole.

        Args:
            directory: the folder to write; made if it is not there.
            progress: draws a progress bar if stderr is a terminal.

        Raises:
            RunError: if the run is not finished, trained nothing, or a file arrived damaged.
        """
        if not self.refresh().settings.get("train_data"):
            raise RunError(
                f"Run {self.name!r} has no artifact: it measured {self.config.get('model')!r} as it is and trained nothing"
            )
        if self.document.state != "FINISHED":
            raise RunError(self._not_yet("artifact", "FINISHED"))
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        files, checksums = self.document.artifact.files, self.document.artifact.checksums
        strange = [name for name in files if Path(name).name != name]
        if strange:
            raise RunError(f"Run {self.name!r} names files outside its artifact ({', '.join(strange)}): not downloaded")
        with (
            tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary,
            download_bar(f"downloading {self.name}", sum(files.values()), progress) as bar,
        ):
            drafts = Path(temporary)
            for name in files:
                path = f"artifact/{name}"
                download_file(self._transport, self.name, path, drafts / name, checksums[name], bar.advance)
            for name in files:
                (drafts / name).replace(folder / name)
        return folder

    def download_file(self, path: str, to: str | Path) -> Path:
        """Downloads one file of the run folder.

        Args:
            path: relative to the run folder, such as ``report/examples.png``.
            to: the file to write.

        Raises:
            RunError: if it arrived damaged.
        """
        return download_file(self._transport, self.name, path, Path(to))

    def _not_yet(self, what: str, when: str) -> str:
        if self.document.state == "FAILED":
            return f"Run {self.name!r} has no {what}: it failed. {self.document.error}"
        return f"Run {self.name!r} is {self.document.state}; its {what} is there once it is {when}. run.wait() waits"


def _line(event: "RunEvent") -> str:
    return f"{event.time} {event.message}"
