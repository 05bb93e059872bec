"""Progress bars on stderr, where it is a terminal; elsewhere nothing is drawn."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

from attune.figures import CHOSEN_BY

if TYPE_CHECKING:
    from attune.schemas import RunEvent


class Bar:
    """One progress bar, drawn while it is open.

    Args:
        description: what is being done.
        total: how much of it there is; None if nobody knows.
        columns: what stands to the right of the bar.
        show: False draws nothing, whatever stderr is.
    """

    def __init__(self, description: str, total: int | None, columns: list[ProgressColumn], show: bool) -> None:
        console = Console(stderr=True)
        note = TextColumn("{task.fields[note]}", markup=False)
        left = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=30)]
        self._progress = Progress(*left, *columns, note, console=console, disable=not (show and console.is_terminal))
        self._task = self._progress.add_task(description, total=total, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def advance(self, amount: int, note: str = "") -> None:
        """Counts `amount` as done."""
        self._progress.update(self._task, advance=amount, note=note)

    def set(self, done: float, total: float, note: str) -> None:
        """Puts the bar at `done` of `total`."""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def describe(self, description: str) -> None:
        """Changes what is being done."""
        self._progress.update(self._task, description=description)


class _CountColumn(MofNCompleteColumn):
    """Done of all; nothing while nobody knows how many there are."""

    def render(self, task: RichTask) -> Text:
        return Text("") if task.total is None else super().render(task)


class _RateColumn(ProgressColumn):
    """Documents per second."""

    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def counting_bar(description: str, total: int | None, show: bool) -> Bar:
    """A bar that counts documents and their rate."""
    return Bar(description, total, [MofNCompleteColumn(), _RateColumn()], show)


def download_bar(description: str, total_bytes: int, show: bool) -> Bar:
    """A bar that counts bytes and their rate."""
    return Bar(description, total_bytes, [DownloadColumn(), TransferSpeedColumn()], show)


class TrainingBar(Bar):
    """A bar that follows the events of a run: its stage, steps, loss, validation recall, seconds left."""

    def __init__(self, name: str, show: bool) -> None:
        super().__init__(name, None, [_CountColumn(), TimeElapsedColumn()], show)
        self._name = name
        self._counts = False
        self._recall = ""

    def follow(self, event: "RunEvent") -> None:
        """Shows what the event says."""
        values = event.values
        if event.kind == "progress" and "steps" in values:
            self._counts = True
            loss = f"loss {values['loss']:.3f}" if "loss" in values else ""
            left = f"{values['seconds_left']:.0f} s left" if "seconds_left" in values else ""
            self.set(values.get("step", 0), values["steps"], "  ".join(filter(None, (loss, self._recall, left))))
        elif event.kind == "validation":
            self._recall = "".join(f"{what} {values[name]:.3f}" for name, what in CHOSEN_BY.items() if name in values)
        elif event.kind == "evaluation":
            self.describe(f"{self._name}: {event.message}")
        elif event.kind == "state":
            self.describe(f"{self._name}: {event.message.splitlines()[0] if event.message else ''}")
            if event.message == "state FINISHED" and not self._counts:  # nothing was trained: a full bar, not a moving one
                self.set(1, 1, "")
