"""The Evaluator: measures the model before and after on the held-out split, or a model as it is."""

from typing import Any

from docarray import DocList
from jina import requests

from attune.schemas import FinetuningRun
from executors.stage import StageExecutor


class Evaluator(StageExecutor):
    """Evaluates a trained run, or one without training data; the work is `attune.evaluate`."""

    stage = "evaluate"

    @requests(on=["/finetune", "/evaluate"])
    async def evaluate(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Runs in; the same runs out, with `evaluation` filled in and the report in their folders."""
        docs = await self.run_stage(docs)
        for run in docs:
            for name, value in run.evaluation.after.items():
                if "recall" in name or name in ("spearman", "pearson") or name.endswith("map@r"):
                    metric = f"attune_{name.replace('@', '_at_')}"
                    self.show(metric, "Held-out figure of the last evaluated run", value)
        return docs
