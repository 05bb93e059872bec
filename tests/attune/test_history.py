"""Lines of a training that a killed process has told are not told twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.training.history import History


@pytest.fixture
def folder(attune_home: Path) -> RunFolder:
    """A new run's."""
    return RunFolder.create(FinetuningRun(name="one"))


def messages(folder: RunFolder) -> list[str]:
    """All lines of a run."""
    return [event.message for event in folder.events()]


def epoch(history: History, number: int, recall: float = 0.5) -> None:
    """What an epoch of two steps has to say."""
    for step in (2 * number - 1, 2 * number):
        history.log(f"step {step}", kind="progress", step=step, epoch=number)
    history.log(f"epoch {number}: {recall}", kind="validation", epoch=number, mean_recall=recall)


def test_what_was_told_after_a_checkpoint_is_not_told_again(folder: RunFolder) -> None:
    first = History(folder)
    epoch(first, 1)
    checkpoint = first.size
    epoch(first, 2)
    first.log("step 5", kind="progress", step=5, epoch=3)

    second = History(folder)
    second.log("loading the model")
    second.resume(checkpoint)
    epoch(second, 2, recall=0.5000001)  # a rounding apart
    epoch(second, 3)

    told = [line for line in messages(folder) if line != "loading the model"]
    assert told == [
        "step 1",
        "step 2",
        "epoch 1: 0.5",
        "step 3",
        "step 4",
        "epoch 2: 0.5",
        "step 5",
        "step 6",
        "epoch 3: 0.5",
    ]


def test_without_a_checkpoint_lines_since_the_stage_began_count(folder: RunFolder) -> None:
    folder.log("epoch 0: 0.1", kind="validation", epoch=0)
    folder.log("tried again from the beginning", kind="state")
    folder.log("about 8 steps", kind="check")
    again = History(folder)
    again.resume(None)
    again.log("about 8 steps", kind="check")
    again.log("epoch 0: 0.2", kind="validation", epoch=0)
    assert messages(folder)[1:] == ["tried again from the beginning", "about 8 steps", "epoch 0: 0.2"]


def test_an_epoch_done_over_is_told_once_more(folder: RunFolder) -> None:
    history = History(folder)
    history.resume(None)
    epoch(history, 1)
    history.log("back to epoch 1", kind="guard")
    epoch(history, 1, recall=0.7)
    assert messages(folder)[-1] == "epoch 1: 0.7"


def test_processes_beside_the_main_one_say_nothing(folder: RunFolder) -> None:
    History(folder, speaks=False).log("hello")
    assert messages(folder) == []


def test_a_training_killed_again_and_again_tells_every_step_and_epoch_once(
    attune_home: Path,
    tiny_model: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> None:
    push("shapes", make_examples(48))
    settings = {
        "model": str(tiny_model),
        "train_data": "shapes",
        "epochs": 24,
        "batch_size": 8,
        "early_stopping_patience": 0,
        "learning_rate": 1e-5,
    }
    folder = RunFolder.create(FinetuningRun(name="killed", settings=settings))
    subprocess.run([sys.executable, "-m", "attune", "validate", "killed"], check=True)
    for kill_after in (3, 9, None):  # epochs
        process = subprocess.Popen([sys.executable, "-m", "attune", "train", "killed"])
        while process.poll() is None and (kill_after is None or _epochs(folder) < kill_after):
            time.sleep(0.05)
        if kill_after is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()

    told = Counter(
        (event.kind, event.values["epoch"]) for event in folder.events() if event.kind in ("validation", "average")
    )
    assert set(told.values()) == {1}
    assert {number for kind, number in told if kind == "validation"} == set(range(25))
    steps = [event.values["step"] for event in folder.events() if event.kind == "progress"]
    assert steps == sorted(set(steps))
    assert folder.load().training.steps == steps[-1]


def _epochs(folder: RunFolder) -> float:
    return max((event.values["epoch"] for event in folder.events() if event.kind == "validation"), default=-1)
