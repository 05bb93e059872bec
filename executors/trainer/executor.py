"""The Trainer: fine-tunes in a child process, so that a crash ends one run and not the service."""

from math import nan
from typing import Any

from docarray import DocList
from jina import requests

from attune.schemas import FinetuningRun
from executors.stage import StageExecutor


class Trainer(StageExecutor):
    """Trains a validated run; the work is `attune.training.train.train`."""

    stage = "train"

    @requests(on=["/finetune", "/train"])
    async def train(self, docs: DocList[FinetuningRun], **kwargs: Any) -> DocList[FinetuningRun]:
        """Runs in; the same runs out, with `training` filled in and `checkpoints/chosen.safetensors` in their folders."""
        return await self.run_stage(docs)

    def on_event(self, kind: str, values: dict[str, float]) -> None:
        """Shows the latest figures of the run at work."""
        if kind == "progress":
            self.show("attune_pairs_per_second", "Training pairs per second", values.get("pairs_per_second", nan))
            self.show("attune_loss", "Training loss", values.get("loss", nan))
        if kind == "validation":
            if "spearman" in values:
                self.show("attune_validation_spearman", "Validation correlation with the scores", values["spearman"])
            elif "map@r" in values:
                self.show("attune_validation_map_at_r", "Validation MAP@R of single items", values["map@r"])
            else:
                self.show(
                    "attune_validation_recall", "Mean validation recall, both directions", values.get("mean_recall", nan)
                )
