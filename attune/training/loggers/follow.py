"""Lets loggers follow a run's history while it trains: each reads it in a thread of its own, and nothing waits for them.

They read what is on the disk, so that they tell nothing that the history does not say, and after a resume begin where they
were. A logger that fails is told of in one line of the history and left behind.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attune.callback_settings import Logger, MLflowLogger, OwnCallback, TensorBoardLogger, WandBLogger
from attune.errors import TrainingStopped
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import TRIED_AGAIN
from attune.training.job import Job
from attune.training.loggers.mlflow import MLflow
from attune.training.loggers.own import Own
from attune.training.loggers.sink import Ending, Facts, Sink, facts_of
from attune.training.loggers.tensorboard import TensorBoard
from attune.training.loggers.wandb import WandB
from attune.training.memory import SmallerPieces

LOOK_SECONDS = 1.0
LAST_SECONDS = 20.0
"""In which all loggers together must be done when training ends: a service that stops waits for it."""
AT_ONCE = 500
"""Events."""
LONGEST_REASON = 300
"""Characters."""


@contextmanager
def loggers(job: Job) -> Iterator[None]:
    """The run's loggers follow it inside the block; only in the main process there are any."""
    callbacks = job.settings.callbacks_of(Logger) if job.world.is_main else ()
    facts = facts_of(job.folder, job.settings, job.recipe)
    followers = [Follower(callback, number, facts, job.log) for number, callback in enumerate(callbacks, start=1)]
    ending: Ending = "failed"
    try:
        yield
        ending = "finished"
    except (TrainingStopped, SmallerPieces):
        ending = "stopped"
        raise
    finally:
        deadline = time.monotonic() + LAST_SECONDS
        for follower in followers:
            follower.end(ending)
        for follower in followers:
            follower.join(deadline)


class Follower:
    """A logger and its thread."""

    def __init__(self, callback: Logger, number: int, facts: Facts, log: Callable[..., None]) -> None:
        self._callback = callback
        self._number = number
        self._facts = facts
        self._log = log
        self._ending: Ending | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)  # a server that hangs holds up no exit
        self._thread.start()

    def end(self, ending: Ending) -> None:
        """Lets it read to the end of the history, and end."""
        self._ending = ending
        self._ends.set()

    def join(self, deadline: float) -> None:
        """Waits for its end, but not for longer than until then."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._say(f"was not done {LAST_SECONDS:g} s after the training")

    def _follow(self) -> None:
        try:
            after = _beginning(self._facts.folder)
            sink = _sink(self._callback, self._number, self._facts)
            while True:
                ends = self._ends.is_set()  # before the look: what was told until then is seen
                events = list(self._facts.folder.events(after, AT_ONCE))
                if events:
                    sink.send(events)
                    after = events[-1].number
                elif ends:
                    break
                else:
                    self._ends.wait(LOOK_SECONDS)
            sink.end(self._ending or "failed")
        except Exception as error:
            reason = re.sub(r"//[^/\s]*@", "//", f"{type(error).__name__}: {error}".splitlines()[0])  # no passwords
            self._say(f"gave up: {reason[:LONGEST_REASON]}")

    def _say(self, what: str) -> None:
        name = self._callback.name if isinstance(self._callback, OwnCallback) else type(self._callback).__name__
        self._log(f"{name} {what}. Training does not depend on it, and all figures are in this history", kind="logger")


def _beginning(folder: RunFolder) -> int:
    """The number after which the events of this attempt begin."""
    return max((event.number for event in folder.events() if event.message == TRIED_AGAIN), default=0)


def _sink(callback: Logger, number: int, facts: Facts) -> Sink:
    match callback:
        case TensorBoardLogger():
            return TensorBoard(callback, facts)
        case MLflowLogger():
            return MLflow(callback, facts)
        case WandBLogger():
            return WandB(callback, facts)
        case OwnCallback():
            return Own(callback, number, facts)
        case _:
            raise TypeError(f"{type(callback).__name__} is no logger")
