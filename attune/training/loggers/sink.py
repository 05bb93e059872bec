"""What a logger is, and what it knows of its run."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from attune.files import write_text
from attune.runs.folder import RunFolder, read_json
from attune.schemas import RunEvent
from attune.settings import FinetuningSettings
from attune.training.recipe import Recipe

Ending = Literal["finished", "stopped", "failed"]
"""How a training ended; one that was stopped goes on later."""


@dataclass(frozen=True)
class Facts:
    """What a logger knows of its run.

    Attributes:
        folder: of the run.
        params: settings and recipe, as text, by name.
        steps_per_epoch: of the recipe.
    """

    folder: RunFolder
    params: dict[str, str]
    steps_per_epoch: int


class Sink(Protocol):
    """A logger at work, in a thread of its own. Whatever it raises ends it, and not the training."""

    def send(self, events: Sequence[RunEvent]) -> None:
        """Takes events in order. After a resume all of the training come again: it leaves out those it was told before."""

    def end(self, ending: Ending) -> None:
        """The training is at an end, or stops for now."""


class Kept:
    """What a logger must know after a resume, in a file of the run's folder `loggers`; removed where a run begins anew.

    Attributes:
        key: that tells the run from all others, wherever its figures go.
        sent: number of the last event that the logger was told.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
        self.key: str = found.get("key", secrets.token_hex(8))
        self.sent: int = found.get("sent", 0)
        if not found:
            self._write()

    def take(self, event: RunEvent) -> bool:
        """Whether an event is new; from then on it is not. A logger killed right then loses it, and never tells it twice."""
        if event.number <= self.sent:
            return False
        self.sent = event.number
        self._write()
        return True

    def _write(self) -> None:
        write_text(self._path, json.dumps({"key": self.key, "sent": self.sent}))


def facts_of(folder: RunFolder, settings: FinetuningSettings, recipe: Recipe) -> Facts:
    """Of a run."""
    given = settings.model_dump(mode="json", exclude={"callbacks"}, exclude_none=True)
    params = {**given, **{f"recipe.{name}": value for name, value in recipe.record().items()}}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
    return Facts(folder, texts, recipe.steps_per_epoch)
