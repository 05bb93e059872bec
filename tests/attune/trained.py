"""Runs of tiny models, for tests that train."""

from pathlib import Path

from attune.config import check_settings
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, RunEvent
from attune.stages import run_stage
from attune.training.job import Job, prepare

QUICK = {
    "train_data": "shapes",
    "batch_size": 16,
    "epochs": 3,
    "learning_rate": 1e-3,
    "augmentation": "none",
    "precision": "fp32",
    "devices": "cpu",
    "eval_split": 0.15,
    "val_split": 0.15,
}


def start(name: str, model: Path | str, **changes: object) -> RunFolder:
    """A validated run, on the dataset `shapes` if nothing else is said."""
    folder = RunFolder.create(FinetuningRun(name=name, settings={**QUICK, "model": str(model), **changes}))
    run_stage("validate", name)
    return folder


def job_of(folder: RunFolder) -> Job:
    """The run, ready to train."""
    return prepare(folder, check_settings(folder.load().settings))


def of_kind(folder: RunFolder, kind: str) -> list[RunEvent]:
    """The events of one kind, in order."""
    return [event for event in folder.events() if event.kind == kind]


def validations(folder: RunFolder, kind: str = "validation") -> list[tuple[float, float, float]]:
    """Epoch, mean loss and recall of each validation, in order; those of the averaged weights are of kind `average`."""
    return [tuple(event.values[name] for name in ("epoch", "loss", "mean_recall")) for event in of_kind(folder, kind)]
