"""A stage of a run as an Executor: it starts `python -m attune STAGE RUN`, watches it, and tells how it ended."""

import asyncio
import math
import os
import signal
import sys
import time
from typing import Any

from docarray import DocList
from prometheus_client import Counter, Gauge, Histogram

from attune.errors import ServiceUnavailable
from attune.runs.events import events_from, history_size
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import check_goes_on, end_cancelled, end_failed
from attune.schemas import FinetuningRun
from attune.stages import STAGES, check_begins
from attune.training.stop import LAUNCHER
from executors.base import AttuneExecutor

POLL_SECONDS = 0.25
KILL_SECONDS = 90.0
"""A child of a cancelled run ends itself (`attune.__main__`); one that hangs is killed after so long."""
STOPPED = (os.EX_TEMPFAIL, -signal.SIGTERM)
"""Exit codes of a child that was asked to stop."""
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
            RunFailed: if the stage failed, or an earlier one had, with the run's error.
            RunCancelled: if the run was cancelled.
            RunError: if a stage before this one is not done.
            ServiceUnavailable: if the stage was broken off; it goes on when it is asked for again.
        """
        return DocList[FinetuningRun]([await self._attach(doc.reference) for doc in docs])

    async def _attach(self, reference: str) -> FinetuningRun:
        if reference not in self.children:
            task = asyncio.create_task(self._work(RunFolder.open(reference)))
            self.children[reference] = task
            task.add_done_callback(lambda _: self.children.pop(reference, None))
        # The caller may go away; the work does not depend on it.
        return await asyncio.shield(self.children[reference])

    async def _work(self, folder: RunFolder) -> FinetuningRun:
        stage = STAGES[self.stage]
        if stage.is_done(run := folder.load()):
            return run
        check_begins(folder, self.stage)
        start = time.monotonic()
        code = await self._child(folder)
        self.seconds.observe(time.monotonic() - start)
        run = folder.load()
        if stage.is_done(run):
            return run
        if not self.closing and code not in STOPPED:
            end_failed(folder, f"{self.stage} ended without a result: {_how_it_ended(code, self.stage)}")
        end_cancelled(folder)
        if folder.load().state == "FAILED":
            self.failures.inc()
        check_goes_on(folder)
        raise ServiceUnavailable(f"Run {folder.reference!r} was stopped in {self.stage}; asked for again, it goes on")

    async def _child(self, folder: RunFolder) -> int:
        """Runs the child to its end, with its output in the run folder, and shows its figures as metrics."""
        name = folder.reference
        told = history_size(folder.path)
        command = [sys.executable, "-m", "attune", self.stage, name]
        environment = {**os.environ, LAUNCHER: str(os.getpid())}
        with (folder.path / f"{self.stage}.log").open("ab") as output:
            # A session of its own: Ctrl+C in the service's terminal is for the service, which then stops its children.
            process = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        self.processes[name] = process
        kill_at = math.inf
        try:
            while process.returncode is None:
                try:
                    await asyncio.wait_for(asyncio.shield(process.wait()), POLL_SECONDS)
                except TimeoutError:
                    told = self._show_events(folder, told)
                    if folder.cancel_mark.exists():
                        kill_at = min(kill_at, time.monotonic() + KILL_SECONDS)
                    if time.monotonic() > kill_at:
                        process.kill()
            self._show_events(folder, told)
        finally:
            del self.processes[name]
            if process.returncode is None:  # nobody watches it any more
                process.terminate()
        return process.returncode

    def _show_events(self, folder: RunFolder, told: int) -> int:
        size = history_size(folder.path)
        for event in events_from(folder.path, told):  # one that is told twice, or in half, does no harm to a gauge
            self.on_event(event.kind, event.values)
        return size

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


def _how_it_ended(code: int, stage: str) -> str:
    if code == -signal.SIGKILL:
        less = "Lower batch_size" if stage == "train" else "Free memory, then resume the run"
        return f"the process was killed, most often for using more memory than there is. {less}"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}; its output is in the run folder"
