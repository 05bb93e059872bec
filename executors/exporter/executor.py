"""The Exporter: writes the artifact and proves that it loads."""

from typing import Any

from docarray import DocList
from jina import requests

from attune.schemas import FinetuningRun
from executors.stage import StageExecutor


class Exporter(StageExecutor):
    """Exports an evaluated run; the work is `attune.export.artifact.export`."""

    stage = "export"

    @requests(on=["/finetune", "/export"])
    async def export(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Runs in; the same runs out, with `artifact` filled in and the model in their `artifact/` folders."""
        return await self.run_stage(docs)
