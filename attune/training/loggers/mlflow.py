"""Figures on an MLflow server, or in MLflow's own files in the run's folder."""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from attune.callback_settings import MLflowLogger
from attune.schemas import RunEvent
from attune.training.loggers.check import check_tracking_uri
from attune.training.loggers.points import points_of
from attune.training.loggers.sink import Ending, Facts, Kept

KEY = "attune.key"
"""Tag by which MLflow's run is found again."""

AT_ONCE = 100
"""Parameters in one request, and metrics: more are refused by some servers."""
LONGEST_VALUE = 500
"""Characters of a parameter."""

_UNLESS_SET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_ALWAYS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow's other stores on disk need a database's packages
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",  # only the host that was checked is asked
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MLflow:
    """Sends parameters and metrics to one run of MLflow, found again by a tag after a resume.

    What that run has is asked for when it is found: a metric is known by its name, its step and its time.
    """

    def __init__(self, logger: MLflowLogger, facts: Facts) -> None:
        if logger.tracking_uri is not None:
            check_tracking_uri(logger.tracking_uri)  # once more: names may lead elsewhere by now
        for name, value in _UNLESS_SET.items():
            os.environ.setdefault(name, value)
        os.environ.update(_ALWAYS)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        run = facts.folder.load()
        self._steps_per_epoch = facts.steps_per_epoch
        here = (facts.folder.loggers / "mlflow").as_uri()
        self._client = MlflowClient(tracking_uri=logger.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or here)
        key = Kept(facts.folder.loggers / "mlflow.json").key
        experiment = self._experiment(logger.experiment or run.experiment)
        found = self._client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{key}'")
        self._there: set[tuple[str, int, int]] = set()
        if found:
            self._run = found[0].info.run_id
            for name in found[0].data.metrics:
                history = self._client.get_metric_history(self._run, name)
                self._there |= {(name, metric.step, metric.timestamp) for metric in history}
            self._client.update_run(self._run, status="RUNNING")
        else:
            tags = {**logger.tags, KEY: key, "attune.run": run.reference}
            if text := logger.run_description or run.description:
                tags["mlflow.note.content"] = text
            created = self._client.create_run(experiment, run_name=logger.run_name or run.reference, tags=tags)
            self._run = created.info.run_id
        params = [Param(name, value[:LONGEST_VALUE]) for name, value in facts.params.items()]
        for some in _pieces(params):
            self._client.log_batch(self._run, params=some)

    def send(self, events: Sequence[RunEvent]) -> None:
        """Sends the metrics that are not there."""
        from mlflow.entities import Metric

        metrics = []
        for event in events:
            step, figures = points_of(event, self._steps_per_epoch)
            moment = round(datetime.fromisoformat(event.time).timestamp() * 1000)
            for name, value in figures.items():
                point = (name.replace("@", "_at_"), step, moment)  # MLflow takes no @
                if point not in self._there:
                    self._there.add(point)
                    metrics.append(Metric(point[0], value, moment, step))
            if event.kind == "result":
                self._client.set_tag(self._run, "attune.result", event.message)
        for some in _pieces(metrics):
            self._client.log_batch(self._run, metrics=some)

    def end(self, ending: Ending) -> None:
        """Says how it ended; a run that goes on later is left as it is."""
        if ending != "stopped":
            self._client.set_terminated(self._run, "FINISHED" if ending == "finished" else "FAILED")

    def _experiment(self, name: str) -> str:
        """Its number; it is made if there is none of that name."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another run of ours made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _pieces(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    for start in range(0, len(listed), AT_ONCE):
        yield listed[start : start + AT_ONCE]
