"""Brings runs through `/finetune`, as many at once as the devices have places for, in fair order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from grpc import RpcError
from jina.proto import jina_pb2_grpc
from jina.types.request.data import DataRequest

from attune.device import devices_of
from attune.errors import RunCancelled, RunError, RunNotFound, ServiceUnavailable
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import end_cancelled, end_failed
from attune.runs.queue import Waiting, choose, positions
from attune.schemas import END_STATES, FinetuningRun
from executors.request import gateway_channel, make_request, read_answer

ASK_SECONDS = 60.0
RETRY_SECONDS = 1.0
SERVED_KEPT = 1000
"""Runs that were started, for the order of those to come."""


class Driver:
    """The queue, and the runs at work.

    Args:
        gateway: where the Flow's gateway listens.
        per_device: runs at work at once on one device.
    """

    def __init__(self, gateway: str, per_device: int) -> None:
        self.gateway = gateway
        self.per_device = per_device
        self.waiting: dict[str, Waiting] = {}
        self.working: dict[str, Waiting] = {}
        self.served: list[Waiting] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._positions: dict[str, int] | None = None

    def add(self, run: FinetuningRun) -> None:
        """Queues a run; one that is at work already, or was when the service stopped, goes on before all that wait."""
        if run.state in END_STATES or run.reference in self.waiting or run.reference in self.working:
            return
        waiting = Waiting(run.reference, run.experiment, run.queued_at or run.created_at, _devices(run))
        if run.state == "CREATED":
            self.waiting[run.reference] = waiting
            self.fill()
        else:
            self._start(waiting)

    def drop(self, reference: str) -> None:
        """Takes a run out of the queue; one at work is left alone."""
        self.waiting.pop(reference, None)
        self.fill()

    def positions(self) -> dict[str, int]:
        """Each waiting run's place in the queue, from 1."""
        if self._positions is None:
            self._positions = positions([*self.waiting.values()], [*self.working.values()], self.served, self.per_device)
        return self._positions

    def fill(self) -> None:
        """Starts the runs whose turn it is. To be called whenever somebody who waits comes, or anybody goes."""
        self._positions = None
        for run in choose([*self.waiting.values()], [*self.working.values()], self.served, self.per_device):
            del self.waiting[run.reference]
            self._start(run)

    def close(self) -> None:
        """Leaves the runs as they are."""
        self.waiting.clear()
        for task in list(self.tasks.values()):
            task.cancel()

    def _start(self, run: Waiting) -> None:
        self._positions = None
        self.working[run.reference] = run
        self.served = [*self.served, run][-SERVED_KEPT:]
        task = asyncio.get_running_loop().create_task(self._drive(run.reference))
        self.tasks[run.reference] = task
        task.add_done_callback(lambda task: self._ended(run.reference, task))

    def _ended(self, reference: str, task: asyncio.Task[None]) -> None:
        del self.working[reference], self.tasks[reference]
        if task.cancelled():
            return
        if error := task.exception():
            logging.error("run %s is left alone: %s", reference, error)
        else:
            with suppress(RunError, OSError):  # deleted; or cannot be read, and is looked for again later
                self.add(RunFolder.open(reference).load())  # it may have been resumed at this very moment
        self.fill()

    async def _drive(self, reference: str) -> None:
        """Asks for the run to be brought through all stages until it is at an end.

        Each request has a deadline and is then made again: it attaches to the stage at work, so nothing is done twice,
        and an answer that was lost is not waited for.
        """
        async with gateway_channel(self.gateway) as channel:
            finetune = jina_pb2_grpc.JinaSingleDataRequestRPCStub(channel).process_single_data
            while True:
                with suppress(OSError):  # a disk that is full, for one: ask again
                    if not await _ask(reference, finetune):
                        return
                await asyncio.sleep(RETRY_SECONDS)


async def _ask(reference: str, finetune: Callable[..., Awaitable[DataRequest]]) -> bool:
    """Asks once; False if the run is at an end, or was deleted."""
    try:
        folder = RunFolder.open(reference)
        end_cancelled(folder)
        run = folder.load()
    except RunNotFound:
        return False
    if run.state in END_STATES:
        return False
    try:
        read_answer("/finetune", await finetune(make_request("/finetune", [run]), timeout=ASK_SECONDS))
    except (RpcError, ServiceUnavailable, RunCancelled):
        pass  # the connection, a stage that was stopped, a process still at work: ask again
    except Exception as error:
        # A stage that fails says so in the run; this is for an error outside any stage.
        end_failed(folder, f"{type(error).__name__}: {error}")
    return True


def _devices(run: FinetuningRun) -> tuple[str, ...]:
    try:
        return devices_of(str(run.settings.get("devices") or "auto"))
    except ValueError:  # made by hand: it is refused when it is validated
        return ("cpu",)
