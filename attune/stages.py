"""The four stages of a run, in order: what each does, when it is done, what it leaves in the run.

Every stage is idempotent: asked again, it returns what is there, or waits for the process that is at it. A run without
`train_data` only evaluates: it has nothing to train or to export, and is finished when it is evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attune.errors import AttuneError, TrainingStopped
from attune.runs import RunFolder, now
from attune.schemas import FinetuningRun


def _validate(folder: RunFolder) -> dict[str, Any]:
    from attune.validation import validate

    return validate(folder.load())


def _train(folder: RunFolder) -> dict[str, Any]:
    from attune.training.train import train

    return {"training": train(folder)}


def _evaluate(folder: RunFolder) -> dict[str, Any]:
    from attune.evaluate import evaluate

    found = {"evaluation": evaluate(folder)}
    return found if _trains(folder.load()) else {**found, **_finished()}


def _export(folder: RunFolder) -> dict[str, Any]:
    from attune.export.artifact import export

    return {"artifact": export(folder), **_finished()}


def _finished() -> dict[str, Any]:
    return {"state": "FINISHED", "finished_at": now()}


def _trains(run: FinetuningRun) -> bool:
    return run.settings.get("train_data") is not None


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        state: what the run is in while the stage works.
        is_done: whether the run holds the stage's result, or has no use for it.
        work: does it, and returns the run's fields to set.
    """

    state: str
    is_done: Callable[[FinetuningRun], bool]
    work: Callable[[RunFolder], dict[str, Any]]


# The work is imported when it is done: a stage's process loads what it needs and no more.
STAGES = {
    "validate": Stage("VALIDATING", lambda run: bool(run.train_fingerprint or run.eval_fingerprint), _validate),
    "train": Stage("TRAINING", lambda run: bool(run.training.device) or not _trains(run), _train),
    "evaluate": Stage("EVALUATING", lambda run: bool(run.evaluation.split_fingerprint), _evaluate),
    "export": Stage("EXPORTING", lambda run: bool(run.artifact.files) or not _trains(run), _export),
}


def run_stage(name: str, run_name: str) -> FinetuningRun:
    """Does one stage of a run, once, however often and by however many processes it is asked for.

    Raises:
        AttuneError: what the stage raised; the run is then FAILED and holds the message.
    """
    stage = STAGES[name]
    folder = RunFolder.open(run_name)
    with folder.locked("stage"):
        run = folder.load()
        if stage.is_done(run):
            return run
        if run.error:  # it is tried again
            folder.update(lambda run: _set_fields(run, {"error": "", "finished_at": ""}))
        folder.set_state(stage.state)
        try:
            with folder.timed(name):
                fields = stage.work(folder)
        except TrainingStopped:
            raise  # not a failure: whoever asked for it says how the run ends
        except AttuneError as error:
            fail(folder, str(error))
            raise
        if fields.get("state") == "FINISHED":
            folder.log("state FINISHED", kind="state")  # before the state: who sees the end has seen all events
        return folder.update(lambda run: _set_fields(run, fields))


def fail(folder: RunFolder, message: str) -> None:
    """Ends a run in FAILED, with the reason in the run and in its history."""

    def change(run: FinetuningRun) -> None:
        run.state, run.error, run.finished_at = "FAILED", message, now()

    folder.log(f"FAILED: {message}", kind="state")  # before the state: who sees the end has seen all events
    folder.update(change)


def _set_fields(run: FinetuningRun, fields: dict[str, Any]) -> None:
    for field, value in fields.items():
        setattr(run, field, value)
