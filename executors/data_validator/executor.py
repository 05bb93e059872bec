"""The DataValidator: takes in examples, keeps datasets, and checks runs before they cost anything."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from docarray import DocList
from jina import requests
from prometheus_client import Counter

from attune.data import store, uploads
from attune.data.contradictions import REASON
from attune.runs.life_cycle import posted
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import run_stage
from executors.base import AttuneExecutor


class DataValidator(AttuneExecutor):
    """Validates; the work is `attune.data` and `attune.validation`. Decoding runs in threads, off the event loop."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Of their own: pictures that take long keep nobody waiting who asks for something else.
        self.decoding = ThreadPoolExecutor(os.cpu_count() or 1, "decoding")
        self.accepted = Counter("attune_examples_accepted", "Examples stored", registry=self.metrics)
        self.problems = Counter("attune_bad_examples", "Problems found, by reason", ["reason"], registry=self.metrics)

    @requests(on="/push")
    async def push(
        self, docs: DocList[TrainingExample], parameters: dict[str, Any], **kwargs: Any
    ) -> DocList[DatasetReport]:
        """A batch of examples in; a report of this batch out, with its key and its problems.

        Parameters:
            name: the dataset.
            upload: where batches that are not part of a dataset yet are found again; `/datasets/commit` takes them.
        """
        name, upload = str(parameters.get("name", "")), str(parameters.get("upload", ""))
        report = await asyncio.get_running_loop().run_in_executor(self.decoding, uploads.add_batch, name, upload, docs)
        self.accepted.inc(report.items)
        for reason, count in report.reasons.items():
            self.problems.labels(reason).inc(count)
        return DocList[DatasetReport]([report])

    @requests(on="/datasets/uploaded")
    async def uploaded(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name, upload and keys of batches in; those out that need not be sent, with their counts."""
        reports = [await asyncio.to_thread(uploads.uploaded, doc.name, doc.upload, doc.batches) for doc in docs]
        return DocList[DatasetReport](reports)

    @requests(on="/datasets/commit")
    async def commit(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name, upload and keys of all batches in; the whole dataset's report out."""
        reports = [await asyncio.to_thread(uploads.commit, doc.name, doc.upload, doc.batches) for doc in docs]
        for report in reports:
            if count := report.reasons.get(REASON):  # the one that only the whole shows
                self.problems.labels(REASON).inc(count)
        return DocList[DatasetReport](reports)

    @requests(on="/datasets/get")
    async def get(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name in; the dataset's report out, with the problems after the first `after`."""
        reports = [await asyncio.to_thread(store.describe, doc.name, doc.after) for doc in docs]
        return DocList[DatasetReport](reports)

    @requests(on="/datasets/list")
    async def list(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """The next datasets by name, after the one that is named, without their problems."""
        after = docs[0].name if docs else ""
        return DocList[DatasetReport](await asyncio.to_thread(store.list_datasets, after))

    @requests(on="/datasets/delete")
    async def delete(self, docs: DocList[DatasetReport], **kwargs: Any) -> DocList[DatasetReport]:
        """Name in; what it was out."""
        return DocList[DatasetReport]([await asyncio.to_thread(store.delete, doc.name) for doc in docs])

    @requests(on=["/finetune", "/validate"])
    async def validate(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Runs in; the same runs out, with complete settings and the fingerprints of their data."""
        folders = [await asyncio.to_thread(posted, doc) for doc in docs]
        runs = [await asyncio.to_thread(run_stage, "validate", folder.reference) for folder in folders]
        return DocList[FinetuningRun](runs)
