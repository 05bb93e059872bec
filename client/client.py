"""The way into a service: push data, fine-tune, search."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attune.errors import DataError, RunExists, RunNotFound
from attune.names import random_name
from client.batches import numbered, send_batches
from client.callbacks import EvaluationCallback
from client.events import get_run
from client.progress import counting_bar
from client.pushes import Pushes
from client.run import Run
from client.search import encoded, search_documents, search_query
from client.settings import check_dataset_name, check_request
from client.transport import call_one, connect, patiently, wrong_service

if TYPE_CHECKING:
    from attune.data.read import Source
    from attune.schemas import DatasetReport, SearchDocument, SearchMatch, TrainingExample

DEFAULT_URL = "grpc://localhost:51000"
DEFAULT_SEARCH_URL = "grpc://localhost:51001"


class AttuneClient:
    """A client of the Flows `flows/finetune.yml` and `flows/search.yml`. Sends nothing until it is asked something.

    Args:
        url: the fine-tuning Flow, `grpc://host:port` or `http://host:port`; `grpcs` and `https` for TLS.
        search_url: the search Flow; by default port 51001 of this machine.

    Raises:
        SettingsError: if an address cannot be used.
    """

    def __init__(self, url: str = DEFAULT_URL, search_url: str | None = None) -> None:
        self._transport = connect(url, "flows/finetune.yml")
        self._search = connect(search_url or DEFAULT_SEARCH_URL, "flows/search.yml")

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
            name: what `fit(train_data=...)` then takes; an older dataset of that name is replaced.
            data: a `DocList[TrainingExample]` or any iterable of them; a CSV file, a folder, a Parquet file. See
                `attune.data.read.read_examples`.
            image_folder: where a CSV's relative image paths start, if not beside it.
            batch_size: examples sent at a time, at most; batches of large pictures are smaller.
            progress: draws a progress bar if stderr is a terminal.

        Returns:
            What the dataset holds, and `.problems` of the `.rejected` examples.

        Raises:
            DataError: if the data cannot be read, or nothing of it can be used.
        """
        from attune.data.read import count_examples, read_examples
        from attune.schemas import DatasetReport

        check_dataset_name(name)
        upload = uuid4().hex
        examples = numbered(read_examples(data, image_folder))
        send = partial(call_one, self._transport, "/push", parameters={"name": name, "upload": upload})
        total = count_examples(data) if progress else None
        sent = rejected = 0
        with counting_bar(f"pushing {name}", total, progress) as bar:
            for count, answer in send_batches(examples, batch_size, send):
                sent += count
                rejected += answer.rejected
                bar.advance(count, f"{rejected} rejected" if rejected else "")
        if not sent:
            raise DataError(f"There is nothing to push as {name!r}: the data holds no examples")
        closing = DatasetReport(name=name, upload=upload)
        report: DatasetReport = patiently(partial(call_one, self._transport, "/datasets/commit", [closing]))
        return report

    def dataset(self, name: str) -> "DatasetReport":
        """What a pushed dataset holds.

        Raises:
            DatasetNotFound: if nothing was pushed under the name.
        """
        from attune.schemas import DatasetReport

        report: DatasetReport = call_one(self._transport, "/datasets/get", [DatasetReport(name=name)])
        return report

    def fit(
        self,
        model: str,
        train_data: "str | Path | Iterable[TrainingExample]",
        eval_data: "str | Path | Iterable[TrainingExample] | None" = None,
        run_name: str | None = None,
        experiment_name: str = "default",
        description: str = "",
        wait: bool = False,
        callbacks: Sequence[EvaluationCallback | dict[str, Any]] | None = None,
        **settings: Any,
    ) -> Run:
        """Starts a fine-tuning run on the service.

        Args:
            model: `starter`, `name#weights` such as `ViT-B-32#openai`, `name#scratch`, a path on the service, or the name
                of a finished run.
            train_data: name of a pushed dataset; or a `Path` or examples, which are pushed first under `run_name`.
            eval_data: the same, to measure before and after on, pushed under `run_name` and `-eval`; by default a part
                of the training data is held out.
            run_name: unique on the service; a random one by default.
            experiment_name: a label to list runs by.
            description: free text.
            wait: returns only when the run is finished.
            callbacks: `client.EvaluationCallback`s: other data on which to look at the model after each epoch.
            settings: any other of `attune.settings.FinetuningSettings`; None means its default.

        Raises:
            SettingsError: with everything that is wrong with the settings; nothing was sent then.
            RunExists: if the name is taken.
            RunFailed: if `wait` is set and the run failed.
        """
        pushes = Pushes(run_name or random_name())
        given = {
            "model": model,
            "train_data": pushes.name(train_data),
            "eval_data": pushes.name(eval_data, "-eval"),
            "callbacks": pushes.callbacks(callbacks),
        }
        return self._start({**given, **settings}, pushes, experiment_name, description, wait)

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
            RunExists: if the name is taken.
            RunFailed: if `wait` is set and the run failed.
        """
        pushes = Pushes(run_name or random_name())
        given = {"model": model, "eval_data": pushes.name(data, "-eval"), "baseline": baseline}
        return self._start({**given, **settings}, pushes, experiment_name, description, wait)

    def _start(self, settings: dict[str, Any], pushes: Pushes, experiment_name: str, description: str, wait: bool) -> Run:
        """Checks the settings, pushes what is not there yet, and submits the run."""
        from attune.schemas import FinetuningRun

        run_name = pushes.run_name
        checked = check_request(run_name, settings)
        if pushes.data:
            self._refuse_taken(run_name)  # before its data takes the place of that run's
        for name, data in pushes.data.items():
            self.push(name, data)
        request = FinetuningRun(name=run_name, experiment=experiment_name, description=description, settings=checked)
        submitted = call_one(self._transport, "/runs/submit", [request])
        if not submitted.created_at:
            raise wrong_service(self._transport, "does not serve /runs/submit")
        run = Run(self._transport, submitted)
        return run.wait() if wait else run

    def _refuse_taken(self, run_name: str) -> None:
        try:
            self.get_run(run_name)
        except RunNotFound:
            return
        raise RunExists(f"A run named {run_name!r} exists already. Choose another run_name; nothing was sent")

    def get_run(self, name: str) -> Run:
        """A run by its name.

        Raises:
            RunNotFound: if there is none.
        """
        return Run(self._transport, get_run(self._transport, name))

    def list_runs(self, experiment_name: str | None = None) -> list[Run]:
        """Runs on the service, newest first.

        Args:
            experiment_name: only those of this experiment.
        """
        from attune.schemas import RunQuery

        found = self._transport.call("/runs/list", [RunQuery(experiment=experiment_name or "")])
        return [Run(self._transport, document) for document in found]

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
                first caption. Indexing the same key again replaces it.
            image_folder: as for `push`.
            batch_size: as for `push`.
            progress: as for `push`.

        Returns:
            How many documents were sent.
        """
        from attune.data.read import count_examples, read_examples

        documents = search_documents(read_examples(data, image_folder))
        send = partial(encoded, self._search, "/index")
        total = count_examples(data) if progress else None
        sent = 0
        with counting_bar("indexing", total, progress) as bar:
            for count, _ in send_batches(documents, batch_size, send):
                sent += count
                bar.advance(count)
        return sent

    def search(self, query: str | bytes | Path, limit: int = 5) -> list["SearchMatch"]:
        """The nearest indexed documents, best first.

        Args:
            query: a text, an encoded picture, or the `Path` of a picture.
            limit: matches to return, at most.
        """
        [document] = encoded(self._search, "/search", [search_query(query)], {"limit": limit})
        return list(document.matches)
