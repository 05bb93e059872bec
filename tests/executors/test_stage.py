"""A stage's executor and the child process it watches, without a Flow around it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from docarray import DocList

from attune.errors import RunCancelled, RunError, RunFailed, ServiceUnavailable
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import cancel
from attune.schemas import FinetuningRun, TrainingResult
from executors.evaluator.executor import Evaluator
from executors.stage import StageExecutor
from executors.trainer.executor import Trainer

SETTINGS = {"train_data": "shapes", "model": "starter"}


@pytest.fixture
def folder(attune_home: Path) -> RunFolder:
    """A run that is validated."""
    made = RunFolder.create(FinetuningRun(name="first", settings=SETTINGS))
    made.update(lambda run: setattr(run, "train_fingerprint", "abc"))
    return made


def asked(executor: StageExecutor, then: Callable[[int], object]) -> None:
    """Asks for the stage of the run `first`, and does something with the number of its child once it runs."""

    async def ask() -> None:
        task = asyncio.create_task(executor.run_stage(DocList[FinetuningRun]([FinetuningRun(name="first")])))
        while not executor.processes and not task.done():
            await asyncio.sleep(0.01)
        child = executor.processes.get("first")
        if child is not None:
            then(child.pid)
        try:
            await task
        finally:
            if child is not None:  # whether or not the executor has waited for it
                await child.wait()

    asyncio.run(ask())


def kill(number: int) -> None:
    os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize(
    ("executor", "trained", "advice"),
    [(Trainer, "", "more memory than there is. Lower batch_size"), (Evaluator, "cpu", "Free memory, then resume the run")],
)
def test_a_run_whose_process_is_killed_failed(
    folder: RunFolder, executor: type[StageExecutor], trained: str, advice: str
) -> None:
    folder.update(lambda run: setattr(run, "training", TrainingResult(device=trained)))

    with pytest.raises(RunFailed, match=f"ended without a result: the process was killed.*{advice}$"):
        asked(executor(), kill)
    assert folder.load().state == "FAILED"


def test_a_run_does_not_fail_while_another_process_is_at_work_on_it(folder: RunFolder) -> None:
    with folder.locked("stage"), pytest.raises(ServiceUnavailable, match="'first' was stopped in train; asked for again"):
        asked(Trainer(), kill)
    assert (folder.load().state, folder.load().error) == ("CREATED", "")


def test_a_stage_whose_turn_it_is_not_starts_no_process(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="train has to be done before evaluate"):
        asked(Evaluator(), kill)
    assert folder.load().state == "CREATED"
    assert not (folder.path / "evaluate.log").exists()


def test_a_run_that_is_cancelled_does_not_fail_of_it(folder: RunFolder) -> None:
    with folder.locked("stage"), pytest.raises(RunCancelled):
        asked(Trainer(), lambda _: cancel(folder))
    assert (folder.load().state, folder.load().error) == ("CREATED", "")


class Confused(Trainer):
    """It cannot make sense of what a run says."""

    def on_event(self, kind: str, values: dict[str, float]) -> None:
        raise ValueError(f"confused by {kind} of {values}")


def test_a_process_that_nobody_watches_any_more_is_ended(folder: RunFolder) -> None:
    with folder.locked("stage"), pytest.raises(ValueError, match="confused"):
        asked(Confused(), lambda _: folder.log("something"))  # which waits for the child's end
    assert folder.load().state == "CREATED"


def test_an_executor_that_is_closed_stops_its_process_and_the_run_goes_on_later(folder: RunFolder) -> None:
    executor = Trainer()
    with folder.locked("stage"), pytest.raises(ServiceUnavailable):
        asked(executor, lambda _: executor.close())
    assert folder.load().state == "CREATED"


def test_runs_that_are_posted_to_a_stage_take_turns_on_a_device(folder: RunFolder, attune_home: Path) -> None:
    other = RunFolder.create(FinetuningRun(name="second", settings=SETTINGS))
    other.update(lambda run: setattr(run, "train_fingerprint", "abc"))
    executor, most = Trainer(), 0

    async def ask() -> None:
        nonlocal most
        tasks = [asyncio.create_task(executor._attach(name)) for name in ("first", "second")]
        while not all(task.done() for task in tasks):
            most = max(most, len(executor.processes))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask())
    assert most == 1
    assert {one.load().state for one in (folder, other)} == {"FAILED"}  # there is no such data
