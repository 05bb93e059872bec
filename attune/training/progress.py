"""How far a training is and where its time goes, as events of its run: a line about every second."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

RECENT = 20
"""Steps whose pace tells how long the others will take: a machine has more and less to do."""


class Progress:
    """Counts steps and time.

    Attributes:
        log: takes the lines.
        seconds: by kind of work: `data`, `forward`, `backward`, `optimizer`, `validation`.
    """

    def __init__(
        self, log: Callable[..., None], device: torch.device, total_steps: int, epochs: int, interval_seconds: float = 1.0
    ) -> None:
        self.log = log
        self.device = device
        self.total_steps = total_steps
        self.epochs = epochs
        self.interval_seconds = interval_seconds
        self.seconds: dict[str, float] = defaultdict(float)
        self._began = time.monotonic()
        self._reported = 0.0
        self._pairs = 0
        self._stepped: deque[float] = deque(maxlen=RECENT + 1)

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Counts the block's time as this kind of work; a block inside it counts as its own kind only."""
        start, inside = time.monotonic(), sum(self.seconds.values())
        try:
            yield
        finally:
            nested = sum(self.seconds.values()) - inside
            self.seconds[kind] += time.monotonic() - start - nested

    def step(
        self, step: int, epoch: int, loss: float, learning_rate: float, pairs: int, logit_scale: float = math.nan
    ) -> None:
        """Counts a finished step and reports it if the last report is long enough ago, or it is the last one.

        Args:
            step: of the whole run, from 1.
            epoch: from 1.
            loss: of the step.
            learning_rate: of the step.
            pairs: captions in its batch, or single items.
            logit_scale: the temperature that the step was taken with.
        """
        self._pairs += pairs
        self._stepped.append(self._stepping())
        moment = time.monotonic()
        if moment - self._reported < self.interval_seconds and step < self.total_steps:
            return
        self._reported = moment
        left = self._seconds_left(self.total_steps - step)
        said = f", {left['seconds_left']:.0f} s left" if left else ""
        gpu = gpu_figures(self.device)
        busy = f", GPU {gpu['gpu_use']:.0%}" if "gpu_use" in gpu else ""
        self.log(
            f"epoch {epoch}/{self.epochs} step {step}/{self.total_steps} loss {loss:.4f} "
            f"{self.pairs_per_second():.0f} pairs/s{busy}{said}",
            kind="progress",
            step=step,
            steps=self.total_steps,
            epoch=epoch,
            loss=loss,
            learning_rate=learning_rate,
            logit_scale=logit_scale,  # a number that is none is left out
            pairs_per_second=self.pairs_per_second(),
            **left,
            **gpu,
        )

    def pairs_per_second(self) -> float:
        """Training pairs per second of stepping: validation and checkpoints do not count."""
        return self._pairs / self._stepping() if self._pairs else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Time and pairs so far, for a checkpoint."""
        return {"total": self.total_seconds(), "pairs": self._pairs, "seconds": dict(self.seconds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Adds what the processes before this one took, as far as the checkpoint knows."""
        self._began -= state["total"]
        self._pairs += state["pairs"]
        for kind, seconds in state["seconds"].items():
            self.seconds[kind] += seconds

    def total_seconds(self) -> float:
        """Wall-clock seconds of training, in this process and those before it."""
        return time.monotonic() - self._began

    def shares(self) -> dict[str, float]:
        """Share (0-1) of the wall-clock time by kind of work; what is left is loading and checkpoints."""
        total = self.total_seconds()
        return {kind: round(seconds / total, 4) for kind, seconds in self.seconds.items()}

    def _seconds_left(self, steps: int) -> dict[str, float]:
        """By the pace of the last steps, and never of the first, which also sets things up: nothing is known after it."""
        counted = len(self._stepped) - 1
        return {"seconds_left": steps * (self._stepped[-1] - self._stepped[0]) / counted} if counted else {}

    def _stepping(self) -> float:
        return sum(self.seconds[kind] for kind in ("data", "forward", "backward", "optimizer"))


def gpu_figures(device: torch.device) -> dict[str, float]:
    """Peak memory of this process on its GPU, and the share (0-1) of the last moment it was busy, if the driver tells."""
    if device.type != "cuda":
        return {}
    figures = {"gpu_memory_bytes": float(torch.cuda.max_memory_allocated(device))}
    with suppress(Exception):  # the driver's library has errors of its own; training does not end for want of a figure
        figures["gpu_use"] = torch.cuda.utilization(device) / 100
    return figures
