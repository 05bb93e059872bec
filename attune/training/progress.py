"""How far a training is, as events of its run: a line about every second."""

import time

from attune.runs import RunFolder


class Progress:
    """Counts steps and time; time spent outside steps (validation, checkpoints) does not count as throughput."""

    def __init__(self, folder: RunFolder, total_steps: int, epochs: int, interval_seconds: float = 1.0) -> None:
        self.folder = folder
        self.total_steps = total_steps
        self.epochs = epochs
        self.interval_seconds = interval_seconds
        self._began = time.monotonic()
        self._mark = time.monotonic()
        self._reported = 0.0
        self._pairs = 0
        self._steps = 0
        self._busy = 0.0

    def step(self, step: int, epoch: int, loss: float, learning_rate: float, pairs: int) -> None:
        """Counts a finished step and reports it if the last report is long enough ago, or it is the last one."""
        moment = time.monotonic()
        self._busy += moment - self._mark
        self._mark = moment
        self._pairs += pairs
        self._steps += 1
        if moment - self._reported < self.interval_seconds and step < self.total_steps:
            return
        self._reported = moment
        left = (self.total_steps - step) * self._busy / self._steps
        self.folder.log(
            f"epoch {epoch}/{self.epochs} step {step}/{self.total_steps} loss {loss:.4f} "
            f"{self.pairs_per_second():.0f} pairs/s, {left:.0f} s left",
            kind="progress",
            step=step,
            steps=self.total_steps,
            epoch=epoch,
            loss=loss,
            learning_rate=learning_rate,
            pairs_per_second=self.pairs_per_second(),
            seconds_left=left,
        )

    def begin_epoch(self) -> None:
        """Starts a stretch of steps: the time since the last one was validation and checkpoints."""
        self._mark = time.monotonic()

    def pairs_per_second(self) -> float:
        """Training pairs per second of stepping."""
        return self._pairs / self._busy if self._busy else 0.0

    def seconds(self) -> float:
        """Wall-clock seconds since training began."""
        return time.monotonic() - self._began
