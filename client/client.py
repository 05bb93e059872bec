"""The way into a service: push data, fine-tune, search."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attune.errors import RunError, RunExists, RunNotFound
from attune.names import random_name
from client.batches import send_batches
from client.callbacks import Callback, EvaluationCallback
from client.comparison import RunComparison, compare_runs
from client.events import get_run
from client.progress import counting_bar
from client.pushes import Pushes
from client.run import Run
from client.runs import delete_run, find_experiments, find_runs, full_name
from client.search import encoded, search_documents, search_query
from client.settings import MOST, check_count, check_own_name, check_request, check_text
from client.transport import call_one, connect, patiently, wrong_service
from client.uploads import all_datasets, all_problems, push_examples

if TYPE_CHECKING:
    from attune.data.read import Source
    from attune.schemas import (
        DatasetReport,
        Experiment,
        Problem,
        SearchDocument,
        SearchMatch,
        StorageReport,
        TrainingExample,
    )

DEFAULT_URL = "grpc://localhost:51000"
DEFAULT_SEARCH_URL = "grpc://localhost:51001"


class AttuneClient:
    """A client of the Flows `flows/finetune.yml` and `flows/search.yml`. Sends nothing until it is asked something.

    Args:
        url: the fine-tuning Flow, `grpc://host:port` or `http://host:port`; `grpcs` and `https` for TLS.
        search_url: the search Flow; by default port 51001 of this machine.
        token: for services that ask for one; by default that of ATTUNE_TOKEN, or the one that `client.login` keeps.

    Raises:
        SettingsError: if an address cannot be used.
    """

    def __init__(self, url: str = DEFAULT_URL, search_url: str | None = None, token: str | None = None) -> None:
        self._transport = connect(url, "flows/finetune.yml", token)
        self._search = connect(search_url or DEFAULT_SEARCH_URL, "flows/search.yml", token)

    def push(
        self,
        name: str,
        data: "Source",
        image_folder: str | Path | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> "DatasetReport":
        """Sends examples to the service, which checks them and keeps the good ones as a dataset.

        Args:
            name: what `fit(train_data=...)` then takes; an older dataset of that name is replaced. A push that was broken
                off goes on if it is made again, and data that is there already is not sent.
            data: a `DocList[TrainingExample]` or any iterable of them; a CSV file, a folder, a Parquet file. See
                `attune.data.read.read_examples`.
            image_folder: where a CSV's relative image paths start, if not beside it.
            batch_size: examples sent at a time, at most (1 to 10,000); batches of large pictures are smaller.
            progress: draws a progress bar if stderr is a terminal.

        Returns:
            What the dataset holds; how many examples were `.rejected`, and how many `.merged` with others of the same
            picture or text; `.reasons` with the number of problems by reason, and the first 1000 `.problems`.

        Raises:
            SettingsError: if the name or the batch size cannot be one.
            DataError: if the data cannot be read, or nothing of it can be used.
            StorageFull: if the service has no room for it; what was sent is kept for the next try.
        """
        from attune.data.read import count_examples

        check_own_name("name", name)
        check_count("batch_size", batch_size, MOST)
        rejected = 0
        with counting_bar(f"pushing {name}", count_examples(data) if progress else None, progress) as bar:

            def on_batch(count: int, bad: int) -> None:
                nonlocal rejected
                rejected += bad
                bar.advance(count, f"{rejected} rejected" if rejected else "")

            return push_examples(self._transport, name, data, image_folder, batch_size, on_batch)

    def dataset(self, name: str) -> "DatasetReport":
        """What a pushed dataset holds.

        Raises:
            DatasetNotFound: if nothing was pushed under the name.
        """
        from attune.schemas import DatasetReport

        check_text("name", name)
        report: DatasetReport = call_one(self._transport, "/datasets/get", [DatasetReport(name=name)])
        return report

    def problems(self, name: str) -> "Iterator[Problem]":
        """Every problem that was found in a pushed dataset; a report carries the first 1000.

        Raises:
            DatasetNotFound: if nothing was pushed under the name.
        """
        check_text("name", name)
        return all_problems(self._transport, name)

    def list_datasets(self) -> list["DatasetReport"]:
        """All datasets of the service by name, without their problems."""
        return list(all_datasets(self._transport))

    def delete_dataset(self, name: str) -> None:
        """Forgets a dataset's name. Its content stays as long as a run or another name refers to it.

        Raises:
            DatasetNotFound: if nothing was pushed under the name.
            DataError: if a run that is not at an end uses it.
        """
        from attune.schemas import DatasetReport

        check_text("name", name)
        call_one(self._transport, "/datasets/delete", [DatasetReport(name=name)])

    def storage(self) -> "StorageReport":
        """What the service keeps on disk, in bytes by kind, what it may keep at most, and what is free."""
        from attune.schemas import StorageReport

        report: StorageReport = call_one(self._transport, "/storage", [StorageReport()])
        return report

    def fit(
        self,
        model: str | None = None,
        train_data: "str | Path | Iterable[TrainingExample] | None" = None,
        eval_data: "str | Path | Iterable[TrainingExample] | None" = None,
        run_name: str | None = None,
        experiment_name: str = "default",
        description: str = "",
        wait: bool = False,
        callbacks: Sequence[EvaluationCallback | Callback | dict[str, Any]] | None = None,
        val_data: "str | Path | Iterable[TrainingExample] | None" = None,
        **settings: Any,
    ) -> Run:
        """Starts a fine-tuning run on the service, and returns at once.

        Args:
            model: `starter`, `name#weights` such as `ViT-B-32#openai`, `name#scratch`, a path on the service, or a finished
                run: `name`, or `experiment/name`. Or give `model_artifact`, see the settings.
            train_data: name of a pushed dataset; or a `Path` or examples, which are pushed first under `run_name`.
            eval_data: the same, to measure before and after on, pushed under `run_name` and `-eval`; by default a part
                of the training data is held out.
            run_name: unique in its experiment; a random one by default.
            experiment_name: what the run belongs to; it is there as soon as it has a run.
            description: free text.
            wait: returns only when the run is finished.
            callbacks: what is done besides, such as `client.EvaluationCallback`, `client.EarlyStopping` or
                `client.MLflowLogger`; see `docs/training.md`.
            val_data: as `eval_data`, to choose the weights on, pushed under `run_name` and `-val`; by default a part of the
                training data is set aside.
            settings: any other of `attune.settings.FinetuningSettings`; None means its default.

        Raises:
            SettingsError: with everything that is wrong with the settings; nothing was sent then.
            RunExists: if the experiment has a run of that name.
            RunFailed, RunCancelled: if `wait` is set and the run ended so.
        """
        pushes = Pushes(run_name or random_name(), experiment_name)
        given = {
            "model": model,
            "train_data": pushes.name(train_data),
            "eval_data": pushes.name(eval_data, "-eval"),
            "val_data": pushes.name(val_data, "-val"),
            "callbacks": pushes.callbacks(callbacks),
        }
        return self._start({**given, **settings}, pushes, description, wait)

    create_run = fit

    def evaluate(
        self,
        model: str,
        data: "str | Path | Iterable[TrainingExample]",
        baseline: str | None = None,
        run_name: str | None = None,
        experiment_name: str = "default",
        description: str = "",
        wait: bool = False,
        **settings: Any,
    ) -> Run:
        """Starts a run that measures a model as it is: nothing is trained and nothing exported.

        Args:
            model: as for `fit`.
            data: name of a pushed dataset; or a `Path` or examples, which are pushed first under `run_name` and `-eval`.
            baseline: another model to compare with, on the same data.
            run_name: as for `fit`.
            experiment_name: as for `fit`.
            description: as for `fit`.
            wait: as for `fit`.
            settings: `prompt_templates`, `devices` or `seed`; None means its default.

        Raises:
            SettingsError: with everything that is wrong with the settings; nothing was sent then.
            RunExists: if the experiment has a run of that name.
            RunFailed, RunCancelled: if `wait` is set and the run ended so.
        """
        pushes = Pushes(run_name or random_name(), experiment_name)
        given = {"model": model, "eval_data": pushes.name(data, "-eval"), "baseline": baseline}
        return self._start({**given, **settings}, pushes, description, wait)

    def _start(self, settings: dict[str, Any], pushes: Pushes, description: str, wait: bool) -> Run:
        """Checks the settings, pushes what is not there yet, and submits the run."""
        from attune.schemas import FinetuningRun

        run_name, experiment_name = pushes.run_name, pushes.experiment_name
        checked = check_request(run_name, experiment_name, description, settings)
        self._refuse_taken(run_name, experiment_name)  # before its data takes the place of that run's
        for name, data in pushes.data.items():
            self.push(name, data)
        request = FinetuningRun(
            name=run_name, experiment=experiment_name, description=description, settings=checked, request=uuid4().hex
        )
        submitted = patiently(partial(call_one, self._transport, "/runs/submit", [request]))
        if not submitted.created_at:
            raise wrong_service(self._transport, "does not serve /runs/submit")
        run = Run(self._transport, submitted)
        return run.wait() if wait else run

    def _refuse_taken(self, run_name: str, experiment_name: str) -> None:
        try:
            run = self.get_run(run_name, experiment_name)
        except RunNotFound:
            return
        raise RunExists(f"A run named {run.reference!r} exists already. Choose another name; nothing was sent")

    def get_run(self, name: str, experiment_name: str | None = None) -> Run:
        """A run by its name.

        Args:
            name: `name` in the experiment `default`, or `experiment/name`.
            experiment_name: its experiment, if `name` does not say it.

        Raises:
            RunNotFound: if there is none.
        """
        return Run(self._transport, get_run(self._transport, full_name(name, experiment_name)))

    def list_runs(
        self,
        experiment_name: str | None = None,
        states: Sequence[str] = (),
        name: str = "",
        limit: int | None = None,
    ) -> list[Run]:
        """Runs on the service, newest first.

        Args:
            experiment_name: only those of this experiment.
            states: only those in one of these states, such as `["FAILED", "CANCELLED"]`.
            name: only those with this in their names.
            limit: at most so many.

        Raises:
            SettingsError: if there is no such state, or the limit is no number from 1 on.
        """
        found = find_runs(self._transport, "" if experiment_name is None else experiment_name, states, name, limit)
        return [Run(self._transport, document) for document in found]

    def compare(self, one: str | Run, other: str | Run) -> RunComparison:
        """Two evaluated runs side by side: the figures of their models, and how sure the differences are.

        Args:
            one: a run or its name, as for `get_run`.
            other: another, measured on the same data.

        Raises:
            EvaluationError: if they were not measured on the same data with the same preprocessing.
            RunError: if one of them is not evaluated yet.
        """
        runs = (run if isinstance(run, Run) else self.get_run(run) for run in (one, other))
        return compare_runs(self._transport, *(run.evaluated() for run in runs))

    def delete_run(self, name: str, experiment_name: str | None = None) -> None:
        """Removes a run and all its files from the service.

        Args:
            name: as for `get_run`.
            experiment_name: as for `get_run`.

        Raises:
            RunNotFound: if there is none.
            RunError: if it is at work; cancel it first.
        """
        delete_run(self._transport, full_name(name, experiment_name))

    def delete_runs(self, experiment_name: str) -> list[str]:
        """Removes all runs of an experiment, and so the experiment, and returns their names.

        Raises:
            SettingsError: if it is no experiment's name.
            RunNotFound: if it has no runs.
            RunError: if one of them is at work; none is removed then.
        """
        check_own_name("experiment_name", experiment_name)  # an empty one would be all runs there are
        runs = self.list_runs(experiment_name)
        if not runs:
            raise RunNotFound(f"There is no experiment named {experiment_name!r}, or no run in it")
        busy = [run.reference for run in runs if run.document.state not in ("CREATED", "FINISHED", "FAILED", "CANCELLED")]
        if busy:
            raise RunError(f"Nothing was deleted: {', '.join(busy)} still at work. Cancel first")
        for run in runs:
            self.delete_run(run.reference)
        return [run.name for run in runs]

    delete_experiment = delete_runs

    def list_experiments(self) -> list["Experiment"]:
        """What runs belong to, the one with the newest run first, with how many runs are in which state."""
        return find_experiments(self._transport)

    def index(
        self,
        data: "Source | Iterable[SearchDocument]",
        image_folder: str | Path | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> int:
        """Encodes documents with the tuned model and stores them for search.

        Args:
            data: `SearchDocument`s, or whatever `push` takes: an example is found by its picture and shown with its
                first caption; of pairs of texts each document is found, of pairs of pictures or embeddings each match.
                Indexing the same key again replaces it.
            image_folder: as for `push`.
            batch_size: as for `push`.
            progress: as for `push`.

        Returns:
            How many documents were sent.
        """
        from attune.data.read import count_examples, read_examples
        from attune.schemas import SearchDocument, TrainingExample

        check_count("batch_size", batch_size, MOST)
        documents = search_documents(read_examples(data, image_folder, (TrainingExample, SearchDocument)))
        send = partial(encoded, self._search, "/index")
        total = count_examples(data) if progress else None
        sent = 0
        with counting_bar("indexing", total, progress) as bar:
            for count, _ in send_batches(documents, batch_size, send):
                sent += count
                bar.advance(count)
        return sent

    def search(self, query: "str | bytes | Path | Sequence[float]", limit: int = 5) -> list["SearchMatch"]:
        """The nearest indexed documents, best first.

        Args:
            query: a text, an encoded picture, the `Path` of a picture, or, with an `mlp`, an embedding as a list of numbers.
            limit: matches to return, at most.
        """
        [document] = encoded(self._search, "/search", [search_query(query)], {"limit": limit})
        return list(document.matches)
