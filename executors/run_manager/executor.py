"""The RunManager: keeps runs, starts them, and answers what is asked of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from docarray import DocList
from jina import requests
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from attune.errors import LimitExceeded, RunError
from attune.figures import say_size
from attune.room import check_fits
from attune.runs import life_cycle
from attune.runs.files import read_chunk
from attune.runs.folder import RunFolder
from attune.runs.listing import find_experiments, find_runs, listed_runs
from attune.schemas import END_STATES, STATES, Experiment, FileChunk, FinetuningRun, RunEvent, RunQuery, StorageReport
from attune.service import storage
from attune.service.retention import sweep
from attune.service.settings import service_settings
from attune.validation import validate
from executors.base import AttuneExecutor
from executors.run_manager.driver import Driver

TAKE_UP_SECONDS = 60.0
SWEEP_SECONDS = 3600.0
MOST_WAITING = 500
"""Runs in the queue: to work out their places takes the longer the more there are."""
AT_WORK = [state for state in STATES if state not in ("CREATED", *END_STATES)]


class RunManager(AttuneExecutor):
    """Persists a run when it is submitted and drives it through `/finetune` until it is at an end.

    It calls the gateway as a client does, again and again: stages are idempotent, so a run survives a lost connection
    and the restart of any process. Runs that nobody drives are taken up: those that a stopped service left unfinished, and
    those that somebody posted to the stages and left.
    """

    def __init__(self, gateway: str = "grpc://127.0.0.1:51000", **kwargs: Any) -> None:
        """Takes up the runs that are not at an end.

        Args:
            gateway: where this Flow's gateway listens, for the runs this executor drives.
            **kwargs: Jina's own.
        """
        super().__init__(**kwargs)
        self.driver = Driver(gateway, service_settings().concurrent_runs)
        if self.metrics is not None:
            self.metrics.register(RunsByState())
        life_cycle.tidy()
        loop = asyncio.get_running_loop()
        self.tasks = [
            loop.create_task(_every(TAKE_UP_SECONDS, self._take_up_runs)),
            loop.create_task(_every(SWEEP_SECONDS, _sweep)),
        ]

    @requests(on="/runs/submit")
    async def submit(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Checks each run, persists it, queues it and returns at once; the same request again gives the same run."""
        if len(self.driver.waiting) >= MOST_WAITING:
            raise LimitExceeded(f"{MOST_WAITING} runs wait already, and no more are taken. Cancel some, or come later")
        return self._follow([await asyncio.to_thread(_submit, doc) for doc in docs])

    @requests(on="/runs/get")
    async def get(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """The runs of these names."""
        return self._tell([await asyncio.to_thread(_with_run, RunFolder.look, doc) for doc in docs])

    @requests(on="/runs/list")
    async def list(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """A page of the runs that the query asks for, newest first."""
        return self._tell(await asyncio.to_thread(find_runs, docs[0] if docs else RunQuery()))

    @requests(on="/runs/cancel")
    async def cancel(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """Ends runs: at once if they wait, else as soon as the stage at work has stopped."""
        return await self._change(docs, life_cycle.cancel)

    @requests(on="/runs/resume")
    async def resume(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """Queues runs that failed or were cancelled, to go on from their last checkpoints."""
        return await self._change(docs, life_cycle.resume)

    @requests(on="/runs/retry")
    async def retry(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """Queues runs that failed or were cancelled, to begin anew."""
        return await self._change(docs, life_cycle.retry)

    @requests(on="/runs/delete")
    async def delete(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """Removes runs that are not at work, and returns what they were."""
        runs = [await asyncio.to_thread(_with_run, life_cycle.delete, doc) for doc in docs]
        for run in runs:
            self.driver.drop(run.reference)
        return DocList[FinetuningRun](runs)

    @requests(on="/experiments/list")
    async def experiments(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[Experiment]:
        """All experiments, the one with the newest run first; or the one that the query names."""
        return DocList[Experiment](await asyncio.to_thread(find_experiments, docs[0] if docs else RunQuery()))

    @requests(on="/runs/events")
    async def events(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[RunEvent]:
        """A run's history after an event the caller has seen."""
        pages = [await asyncio.to_thread(_events, doc) for doc in docs]
        return DocList[RunEvent]([event for page in pages for event in page])

    @requests(on="/runs/file")
    async def file(self, docs: DocList[FileChunk], **kwargs: Any) -> DocList[FileChunk]:
        """Pieces of files of runs."""
        return DocList[FileChunk]([await asyncio.to_thread(read_chunk, doc) for doc in docs])

    @requests(on="/storage")
    async def storage(self, docs: DocList[StorageReport], **kwargs: Any) -> DocList[StorageReport]:
        """For each report asked for, what is kept on disk."""
        return DocList[StorageReport]([await asyncio.to_thread(storage.report) for _ in docs])

    async def _change(self, docs: DocList[RunQuery], change: Callable[[RunFolder], FinetuningRun]) -> DocList[FinetuningRun]:
        return self._follow([await asyncio.to_thread(_with_run, change, doc) for doc in docs])

    def _follow(self, runs: Sequence[FinetuningRun]) -> DocList[FinetuningRun]:
        """The runs with their places in the queue, which does as they have become."""
        for run in runs:
            if run.state in END_STATES:
                self.driver.drop(run.reference)
            else:
                self.driver.add(run)
        return self._tell(runs)

    def _tell(self, runs: Sequence[FinetuningRun]) -> DocList[FinetuningRun]:
        """The runs with their places in the queue."""
        places = self.driver.positions() if any(run.state == "CREATED" for run in runs) else {}
        for run in runs:
            run.position = places.get(run.reference, 0)
        return DocList[FinetuningRun](runs)

    async def _take_up_runs(self) -> None:
        for run in await asyncio.to_thread(_unfinished):
            self.driver.add(run)

    def close(self) -> None:
        """Leaves the runs as they are; the next start takes them up."""
        for task in self.tasks:
            task.cancel()
        self.driver.close()


class RunsByState(Collector):
    """Counts run folders when metrics are read, so the figure is right after any restart."""

    def collect(self) -> list[GaugeMetricFamily]:
        """One gauge with the label `state`."""
        family = GaugeMetricFamily("attune_runs", "Runs by state", labels=["state"])
        states = [one.state for one in listed_runs()]
        for state in STATES:
            family.add_metric([state], states.count(state))
        return [family]


def _unfinished() -> list[FinetuningRun]:
    """Runs that are not at an end, the oldest first; those at work before those that wait."""
    found = []
    for one in reversed(listed_runs()):
        if one.state not in END_STATES:
            try:
                life_cycle.end_cancelled(one.folder)
                found.append(one.folder.load())
            except (RunError, OSError):
                logging.exception("run %s is not taken up", one.reference)
    return sorted(found, key=lambda run: run.state == "CREATED")


async def _sweep() -> None:
    swept = await asyncio.to_thread(sweep)
    if swept.removed:
        logging.info("removed after its time: %s (%s)", ", ".join(swept.removed), say_size(swept.bytes))


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Does some work now and again and again; what goes wrong with it once is logged."""
    while True:
        try:
            await work()
        except Exception:
            logging.exception("%s is done again in %g s", work.__name__, seconds)
        await asyncio.sleep(seconds)


def _with_run(call: Callable[[RunFolder], FinetuningRun], query: RunQuery) -> FinetuningRun:
    return call(RunFolder.open(query.name))


def _events(query: RunQuery) -> Sequence[RunEvent]:
    return [*RunFolder.open(query.name).events(query.after, query.limit)]


def _submit(run: FinetuningRun) -> FinetuningRun:
    folder = life_cycle.same_request(run)
    if folder is None:
        validate(run)
        check_fits(run, find_runs(RunQuery(states=AT_WORK)))
        folder = life_cycle.submit(run)
    return folder.load()
