"""A training's lines in its run's history, each told once.

A process that is killed has told of steps that came after its last checkpoint. They are done again, to the same result,
and are not told again: curves have every point once, and whoever follows the run reads no line twice.
"""

from collections import Counter
from typing import Any

from attune.runs.events import events_from, history_size
from attune.runs.folder import RunFolder

Line = tuple[str, Any]


class History:
    """Writes a run's history, apart from what is in it already.

    Args:
        folder: of the run.
        speaks: False writes nothing: of several processes the main one speaks for all.
    """

    def __init__(self, folder: RunFolder, speaks: bool = True) -> None:
        self._folder = folder
        self._speaks = speaks
        self._told = Counter[Line]()
        self._step = 0.0

    @property
    def size(self) -> int:
        """Where the history ends now, for a checkpoint, in bytes."""
        return history_size(self._folder.path)

    def resume(self, size: int | None) -> None:
        """Expects what was told after a checkpoint.

        Args:
            size: of the history when the checkpoint was made; None if there was none, and the stage begins anew.
        """
        events = list(events_from(self._folder.path, size or 0))
        if size is None:
            began = max((number for number, event in enumerate(events) if event.kind == "state"), default=-1)
            events = events[began + 1 :]
        self._step = max((event.values.get("step", 0) for event in events if event.kind == "progress"), default=0)
        others = (event for event in events if event.kind != "progress")  # one a second, not one a step
        self._told = Counter(_line(event.kind, event.message, event.values) for event in others)

    def log(self, message: str, kind: str = "log", **values: float) -> None:
        """Adds an event, unless it is there."""
        if not self._speaks or (kind == "progress" and values["step"] <= self._step):
            return
        line = _line(kind, message, values)
        if self._told[line]:
            self._told[line] -= 1
        else:
            self._folder.log(message, kind=kind, **values)


def _line(kind: str, message: str, values: dict[str, float]) -> Line:
    """What makes two lines the same: on a GPU the figures of an epoch done again may be a rounding apart."""
    return kind, values.get("epoch", message)
