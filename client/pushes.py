"""A run's data that is not on the service yet: pushed before the run starts, under names of the run's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.callbacks import EvaluationCallback

if TYPE_CHECKING:
    from attune.schemas import TrainingExample


class Pushes:
    """Collects what is to be pushed for a run.

    Attributes:
        run_name: the run.
        data: a `Path` or examples, by the name of the dataset they become.
    """

    def __init__(self, run_name: str) -> None:
        self.run_name = run_name
        self.data: dict[str, Path | Iterable[TrainingExample]] = {}

    def name(self, data: "str | Path | Iterable[TrainingExample] | None", suffix: str = "") -> str | None:
        """The name of a dataset; one that is yet to be pushed gets the run's, and the suffix."""
        if data is None or isinstance(data, str):
            return data
        name = f"{self.run_name}{suffix}"
        self.data[name] = data
        return name

    def callbacks(self, callbacks: Any) -> Any:
        """Callbacks as settings say them; anything else stays as it is, to be checked with the settings."""
        if not isinstance(callbacks, list | tuple):
            return callbacks
        return [
            self._settings(callback, f"-{number}" if number > 1 else "")
            if isinstance(callback, EvaluationCallback)
            else callback
            for number, callback in enumerate(callbacks, start=1)
        ]

    def _settings(self, callback: EvaluationCallback, suffix: str) -> dict[str, Any]:
        queries = self.name(callback.query_data, f"-query{suffix}")
        return callback.settings(str(queries), self.name(callback.index_data, f"-index{suffix}"))
