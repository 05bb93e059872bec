"""A run's data that is not on the service yet: pushed before the run starts, under names of the run's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attune.names import reference_of
from client.callbacks import Callback, EvaluationCallback

if TYPE_CHECKING:
    from attune.schemas import TrainingExample


class Pushes:
    """Collects what is to be pushed for a run.

    Attributes:
        run_name: the run.
        experiment_name: its experiment.
        data: a `Path` or examples, by the name of the dataset they become.
    """

    def __init__(self, run_name: str, experiment_name: str) -> None:
        self.run_name = run_name
        self.experiment_name = experiment_name
        self.data: dict[str, Path | Iterable[TrainingExample]] = {}

    def name(self, data: Any, suffix: str = "") -> Any:
        """The name of a dataset; one that is yet to be pushed gets the run's, and the suffix.

        Outside of the experiment `default` it begins with the experiment's: run names are unique in theirs only.
        """
        if isinstance(data, str | bytes | dict) or not isinstance(data, Path | Iterable):
            return data  # a name; or what can be neither, which is refused with the settings
        name = f"{reference_of(self.experiment_name, self.run_name).replace('/', '.')}{suffix}"
        self.data[name] = data
        return name

    def callbacks(self, callbacks: Any) -> Any:
        """Callbacks as settings say them; anything else stays as it is, to be checked with the settings."""
        if not isinstance(callbacks, list | tuple):
            return callbacks
        suffixes = ["", *(f"-{number}" for number in range(2, len(callbacks) + 1))]
        return [self._settings(callback, suffix) for callback, suffix in zip(callbacks, suffixes, strict=False)]

    def _settings(self, callback: Any, suffix: str) -> Any:
        if isinstance(callback, Callback):
            return callback.settings()
        if not isinstance(callback, EvaluationCallback):
            return callback
        queries = self.name(callback.query_data, f"-query{suffix}")
        return callback.settings(queries, self.name(callback.index_data, f"-index{suffix}"))
