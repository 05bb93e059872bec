"""The RunManager: keeps runs, starts them, and answers what is asked of them."""

import asyncio
from typing import Any

from docarray import DocList
from grpc import RpcError, aio
from jina import requests
from jina.proto import jina_pb2_grpc
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from attune.errors import ServiceUnavailable
from attune.runs import RunFolder, all_runs, read_chunk
from attune.schemas import END_STATES, STATES, FileChunk, FinetuningRun, RunEvent, RunQuery
from attune.stages import fail
from attune.validation import validate
from executors.base import AttuneExecutor
from executors.request import make_request, read_answer

ASK_SECONDS = 60.0
RETRY_SECONDS = 1.0


class RunManager(AttuneExecutor):
    """Persists a run when it is submitted and drives it through `/finetune` until it is at an end.

    It calls the gateway as a client does, again and again: stages are idempotent, so a run survives a lost connection
    and the restart of any process. Runs that a stopped service left unfinished are taken up when it starts.
    """

    def __init__(self, gateway: str = "grpc://127.0.0.1:51000", concurrent_runs: int = 1, **kwargs: Any) -> None:
        """Sets up the queue.

        Args:
            gateway: where this Flow's gateway listens, for the runs this executor drives.
            concurrent_runs: runs that may be at work at once; the others wait in order.
            **kwargs: Jina's own.
        """
        super().__init__(**kwargs)
        self.gateway = gateway
        self.slots = asyncio.Semaphore(concurrent_runs)
        self.driven: dict[str, asyncio.Task[None]] = {}
        if self.metrics is not None:
            self.metrics.register(RunsByState())
        for folder in reversed(all_runs()):
            if (run := folder.load()).state not in END_STATES:
                self._start(run.name)

    @requests(on="/runs/submit")
    async def submit(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Checks each run, persists it, starts it and returns at once."""
        runs = DocList[FinetuningRun]()
        for doc in docs:
            await asyncio.to_thread(validate, doc)
            runs.append(RunFolder.create(doc).load())
            self._start(doc.name)
        return runs

    @requests(on="/runs/get")
    async def get(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """The runs of these names."""
        return DocList[FinetuningRun]([RunFolder.open(doc.name).load() for doc in docs])

    @requests(on="/runs/list")
    async def list(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[FinetuningRun]:
        """All runs, newest first; of one experiment if the query names it."""
        wanted = docs[0].experiment if docs else ""
        runs = [folder.load() for folder in all_runs()]
        return DocList[FinetuningRun]([run for run in runs if wanted in ("", run.experiment)])

    @requests(on="/runs/events")
    async def events(self, docs: DocList[RunQuery], **kwargs: Any) -> DocList[RunEvent]:
        """A run's history after an event the caller has seen."""
        query = docs[0]
        return DocList[RunEvent](RunFolder.open(query.name).events(query.after, query.limit))

    @requests(on="/runs/file")
    async def file(self, docs: DocList[FileChunk], **kwargs: Any) -> DocList[FileChunk]:
        """Pieces of files of runs."""
        return DocList[FileChunk]([await asyncio.to_thread(read_chunk, doc) for doc in docs])

    def _start(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._drive(name))
        self.driven[name] = task
        task.add_done_callback(lambda _: self.driven.pop(name, None))

    async def _drive(self, name: str) -> None:
        """Asks for the run to be brought through all stages until it is at an end.

        Each request has a deadline and is then made again: it attaches to the stage at work, so nothing is done twice,
        and an answer that was lost is not waited for.
        """
        folder = RunFolder.open(name)
        channel = aio.insecure_channel(self.gateway.removeprefix("grpc://"))
        finetune = jina_pb2_grpc.JinaSingleDataRequestRPCStub(channel).process_single_data
        async with self.slots, channel:
            while (run := folder.load()).state not in END_STATES:
                try:
                    read_answer("/finetune", await finetune(make_request("/finetune", [run]), timeout=ASK_SECONDS))
                except (RpcError, ServiceUnavailable):
                    pass  # the connection, or a stage that is just stopping: ask again
                except Exception as error:
                    # A stage that fails says so in the run; this is for an error outside any stage.
                    if folder.load().state not in END_STATES:
                        fail(folder, f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """Leaves the runs as they are; the next start takes them up."""
        for task in list(self.driven.values()):
            task.cancel()


class RunsByState(Collector):
    """Counts run folders when metrics are read, so the figure is right after any restart."""

    def collect(self) -> list[GaugeMetricFamily]:
        """One gauge with the label `state`."""
        family = GaugeMetricFamily("attune_runs", "Runs by state", labels=["state"])
        states = [folder.load().state for folder in all_runs()]
        for state in STATES:
            family.add_metric([state], states.count(state))
        return [family]
