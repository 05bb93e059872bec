"""A stage of a run as an Executor: it starts `python -m attune STAGE RUN`, watches it, and tells how it ended."""

import asyncio
import math
import os
import signal
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

from docarray import DocList
from prometheus_client import Counter, Gauge, Histogram

from attune.device import devices_of
from attune.errors import ServiceUnavailable
from attune.runs.events import events_from, history_size
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import check_goes_on, end_cancelled, end_failed
from attune.schemas import FinetuningRun
from attune.service.settings import service_settings
from attune.stages import STAGES, check_begins
from attune.training.stop import LAUNCHER
from executors.base import AttuneExecutor

POLL_SECONDS = 0.25
KILL_SECONDS = 90.0
"""A child that is asked to stop ends after the step it is at, with a checkpoint; one that hangs is killed after so long."""
LOCK_SECONDS = 2.0
"""After a child is gone: another process that waits for the run's lock has it by then, and goes on with the run."""
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
        self.places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(service_settings().concurrent_runs))

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
        async with AsyncExitStack() as places:
            # The queue starts no more runs than there are places; here are also those that somebody posts to the stage.
            for device in sorted(set(devices_of(str(run.settings.get("devices") or "auto")))):
                await places.enter_async_context(self.places[device])
            check_begins(folder, self.stage)  # it may have been cancelled meanwhile
            start = time.monotonic()
            code = await self._child(folder)
        self.seconds.observe(time.monotonic() - start)
        run = folder.load()
        if stage.is_done(run):
            return run
        if not self.closing and code not in STOPPED:
            await asyncio.sleep(LOCK_SECONDS)
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
            if process.returncode is None:  # nobody watches it any more but `close`
                process.terminate()
            else:
                del self.processes[name]
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
        """Stops the children and waits for their checkpoints, from which they go on when the run is taken up again.

        In a container all that is left ends with the service, so the service is not to end before them.
        """
        self.closing = True
        for process in self.processes.values():
            if not _has_ended(process.pid):
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + KILL_SECONDS
        for process in self.processes.values():
            while not _has_ended(process.pid):
                if time.monotonic() > deadline:
                    os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.1)


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has, without a word to the event loop, which takes note of it in its own way."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # note was taken
        return True


def _how_it_ended(code: int, stage: str) -> str:
    if code == -signal.SIGKILL:
        less = "Lower batch_size" if stage == "train" else "Free memory, then resume the run"
        return f"the process was killed, most often for using more memory than there is. {less}"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}; its output is in the run folder"
