"""The DataValidator: takes in examples, keeps datasets, and checks runs before they cost anything."""

import asyncio
from typing import Any

from docarray import DocList
from jina import requests
from prometheus_client import Counter

from attune.data import store
from attune.runs import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import run_stage
from executors.base import AttuneExecutor


class DataValidator(AttuneExecutor):
    """Validates; the work is `attune.data` and `attune.validation`. Decoding runs in threads, off the event loop."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.accepted = Counter("attune_examples_accepted", "Examples stored", registry=self.metrics)
        self.problems = Counter("attune_bad_examples", "Problems found, by reason", ["reason"], registry=self.metrics)

    @requests(on="/push")
    async def push(
        self, docs: DocList[TrainingExample], parameters: dict[str, Any], **kwargs: Any
    ) -> DocList[DatasetReport]:
        """A batch of examples in; a report of this batch out, with every problem.

        Parameters:
            name: the dataset.
            upload: any name that ties the batches of one push together; `/datasets/commit` closes it.
        """
        name, upload = str(parameters.get("name", "")), str(parameters.get("upload", ""))
        report = await asyncio.to_thread(store.add_batch, name, upload, docs)
        self.accepted.inc(report.images)
        for reason, count in store.problems_by_reason(report.problems).items():
            self.problems.labels(reason).inc(count)
        return DocList[DatasetReport]([report])

    @requests(on="/datasets/commit")
    async def commit(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name and upload in; the whole dataset's report out."""
        reports = [await asyncio.to_thread(store.commit, doc.name, doc.upload) for doc in docs]
        return DocList[DatasetReport](reports)

    @requests(on="/datasets/get")
    async def get(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name in; the dataset's report out."""
        return DocList[DatasetReport]([store.describe(doc.name) for doc in docs])

    @requests(on=["/finetune", "/validate"])
    async def validate(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Runs in; the same runs out, with complete settings and the fingerprints of their data."""
        for doc in docs:
            RunFolder.open_or_create(doc)
        runs = [await asyncio.to_thread(run_stage, "validate", doc.name) for doc in docs]
        return DocList[FinetuningRun](runs)
