"""Clients that live through it all: one follows the run, one pushes data."""

import threading
from functools import partial
from pathlib import Path

from attune.schemas import END_STATES
from client import AttuneClient
from client.run import Run
from tests.chaos.data import examples, is_whole
from tests.chaos.patience import patient

PAUSE_SECONDS = 0.5
BATCH = 4


class Witness:
    """What a run's users have seen of it, and which data they have pushed meanwhile.

    Args:
        attune: of the service.
        run: the run at work.
    """

    def __init__(self, attune: AttuneClient, run: Run) -> None:
        self.attune = attune
        self.run = run
        self.lines: list[int] = []
        self.pushed: list[str] = []
        self.errors: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watched, args=[work]) for work in (self._follow, self._push_on)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Waits until both have come to the end of what they do."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def push(self, name: str) -> None:
        """Pushes a dataset of its own; the examples' tag is its name."""
        patient(lambda: self.attune.push(name, examples(name), batch_size=BATCH, progress=False))
        self.pushed.append(name)

    def losses(self, home: Path, events: list[int]) -> list[str]:
        """What they have to complain of."""
        found = list(self.errors)
        if self.lines != events:
            found.append("lines lost or doubled on their way to the client")
        for name in self.pushed:
            if not is_whole(home, patient(partial(self.attune.dataset, name)).fingerprint, name):
                found.append(f"examples lost or doubled in the dataset {name}")
        return found

    def _watched(self, work: "partial[None]") -> None:
        try:
            work()
        except Exception as error:
            self.errors.append(f"a client had to give up: {type(error).__name__}: {error}")

    def _follow(self) -> None:
        """Every line to the last; a run that fails is resumed, and followed on."""
        while True:
            for event in self.run.stream_events(self.lines[-1] if self.lines else 0):
                self.lines.append(event.number)
            if self._over.wait(PAUSE_SECONDS) and patient(self.run.status) in END_STATES:
                self.lines += [event.number for event in self.run.stream_events(self.lines[-1])]
                return

    def _push_on(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            self.push(f"{self.run.name}-{len(self.pushed)}")
