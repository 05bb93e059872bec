"""The four stages of a run, in order: what each does, when it is done, what it leaves in the run.

Every stage is idempotent: asked again, it returns what is there, or waits for the process that is at it. A run without
`train_data` only evaluates: it has nothing to train or to export, and is finished when it is evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from attune.errors import AttuneError, RunError, TrainingStopped
from attune.files import disk_may_fill
from attune.garbage import importing
from attune.runs.folder import RunFolder, now
from attune.runs.life_cycle import check_goes_on, fail
from attune.schemas import FinetuningRun


def _validate(folder: RunFolder) -> dict[str, Any]:
    with importing():
        from attune.room import check_fits
        from attune.validation import validate

    run = folder.load()
    found = validate(run)
    check_fits(run)  # of those that are submitted, the queue has asked before
    return found


def _train(folder: RunFolder) -> dict[str, Any]:
    with importing():
        from attune.training.train import train

    return {"training": train(folder)}


def _evaluate(folder: RunFolder) -> dict[str, Any]:
    with importing():
        from attune.evaluate import evaluate

    found = {"evaluation": evaluate(folder)}
    return found if _trains(folder.load()) else {**found, **_finished()}


def _export(folder: RunFolder) -> dict[str, Any]:
    with importing():
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


def check_begins(folder: RunFolder, name: str) -> None:
    """Passes if a stage of a run may begin now. Nothing is changed if it may not.

    Raises:
        RunCancelled: if the run was cancelled, or is to be.
        RunFailed: if it FAILED: `attune.runs.life_cycle.resume` puts it on its way again.
        RunError: if a stage before this one is not done.
    """
    check_goes_on(folder)
    run = folder.load()
    for earlier in takewhile(lambda other: other != name, STAGES):
        if not STAGES[earlier].is_done(run):
            raise RunError(
                f"Run {folder.reference!r} is {run.state}: {earlier} has to be done before {name}. Post it to /{earlier} "
                "first, or to /finetune, which does all stages"
            )


def run_stage(name: str, reference: str) -> FinetuningRun:
    """Does one stage of a run, once, however often and by however many processes it is asked for.

    Raises:
        RunError: if it may not begin; see `check_begins`.
        Exception: what the stage raised; the run is then FAILED and holds the message.
    """
    stage = STAGES[name]
    folder = RunFolder.open(reference)
    if stage.is_done(run := folder.load()):
        return run  # without the lock, which a later stage may hold for hours
    with folder.locked("stage"):
        if stage.is_done(run := folder.load()):
            return run
        check_begins(folder, name)
        try:
            with disk_may_fill(f"the run {reference!r}"):
                folder.set_state(stage.state, stage_started={**run.stage_started, name: now()})
                with folder.timed(name):
                    fields = stage.work(folder)
                return folder.set_state(fields.pop("state", stage.state), **fields)
        except TrainingStopped:
            raise  # not a failure: whoever asked for it says how the run ends
        except AttuneError as error:
            fail(folder, str(error))
            raise
        except Exception as error:  # a mistake of ours: the run must still say why it ended
            fail(folder, f"{name} stopped unexpectedly: {type(error).__name__}: {error}")
            raise
