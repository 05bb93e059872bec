"""A stage of a run as an Executor: it starts `python -m attune STAGE RUN`, watches it, and tells how it ended."""

import asyncio
import os
import signal
import sys
import time
from typing import Any

from docarray import DocList
from prometheus_client import Counter, Gauge, Histogram

from attune.errors import RunFailed, ServiceUnavailable
from attune.runs import RunFolder
from attune.schemas import FinetuningRun
from attune.stages import STAGES, fail
from executors.base import AttuneExecutor

POLL_SECONDS = 0.25
BUCKETS = (0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class StageExecutor(AttuneExecutor):
    """Runs one stage in child processes; requests for one run share one child.

    Attributes:
        stage: name of the stage, set by subclasses.
    """

    stage: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.closing = False
        self.children: dict[str, asyncio.Task[FinetuningRun]] = {}
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.seconds = Histogram(
            f"attune_{self.stage}_seconds", f"Seconds of the {self.stage} stage", buckets=BUCKETS, registry=self.metrics
        )
        self.failures = Counter(f"attune_{self.stage}_failures", "Runs that failed in this stage", registry=self.metrics)
        self.values: dict[str, Gauge] = {}

    async def run_stage(self, docs: DocList[FinetuningRun]) -> DocList[FinetuningRun]:
        """Brings each run through the stage and returns it; attaches to work that is under way.

        Raises:
            RunNotFound: if there is no such run.
            RunFailed: if the stage failed, with the run's error.
        """
        return DocList[FinetuningRun]([await self._attach(doc.name) for doc in docs])

    async def _attach(self, name: str) -> FinetuningRun:
        if name not in self.children:
            task = asyncio.create_task(self._work(RunFolder.open(name), name))
            self.children[name] = task
            task.add_done_callback(lambda _: self.children.pop(name, None))
        # The caller may go away; the work does not depend on it.
        return await asyncio.shield(self.children[name])

    async def _work(self, folder: RunFolder, name: str) -> FinetuningRun:
        stage = STAGES[self.stage]
        start = time.monotonic()
        if not stage.is_done(folder.load()):
            code = await self._child(folder, name)
            self.seconds.observe(time.monotonic() - start)
            run = folder.load()
            if not stage.is_done(run):
                if self.closing:
                    raise ServiceUnavailable(f"The service is stopping; run {name!r} goes on when it starts again")
                self.failures.inc()
                if run.state != "FAILED":
                    fail(folder, f"{self.stage} ended without a result: {_how_it_ended(code)}")
                raise RunFailed(folder.load().error)
        return folder.load()

    async def _child(self, folder: RunFolder, name: str) -> int:
        """Runs the child to its end, with its output in the run folder, and shows its figures as metrics."""
        with (folder.path / f"{self.stage}.log").open("ab") as output:
            # A session of its own: Ctrl+C in the service's terminal is for the service, which then stops its children.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "attune", self.stage, name, stdout=output, stderr=output, start_new_session=True
            )
        self.processes[name] = process
        seen = 0
        try:
            while process.returncode is None:
                try:
                    await asyncio.wait_for(asyncio.shield(process.wait()), POLL_SECONDS)
                except TimeoutError:
                    seen = self._show_events(folder, seen)
            self._show_events(folder, seen)
        finally:
            del self.processes[name]
        return process.returncode

    def _show_events(self, folder: RunFolder, seen: int) -> int:
        for event in folder.events(after=seen):
            seen = event.number
            self.on_event(event.kind, event.values)
        return seen

    def on_event(self, kind: str, values: dict[str, float]) -> None:
        """Called for every event of a run at work; subclasses turn numbers into metrics with `show`."""

    def show(self, name: str, help_text: str, value: float) -> None:
        """Sets the gauge of that name."""
        if name not in self.values:
            self.values[name] = Gauge(name, help_text, registry=self.metrics)
        self.values[name].set(value)

    def close(self) -> None:
        """Stops the children: they continue from their last checkpoint when the run is taken up again."""
        self.closing = True
        for process in list(self.processes.values()):
            if process.returncode is None:
                os.kill(process.pid, signal.SIGTERM)


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the process was killed, most often for using more memory than there is. Lower batch_size"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}; its output is in the run folder"
