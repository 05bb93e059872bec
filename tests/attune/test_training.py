import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.errors import TrainingError
from attune.models.clip import WEIGHTS, load_clip
from attune.runs import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import fail, run_stage

Make = Callable[..., list[TrainingExample]]
Push = Callable[..., DatasetReport]


def settings(**changes: object) -> dict[str, object]:
    quick = {"train_data": "shapes", "batch_size": 16, "epochs": 3, "learning_rate": 1e-3, "augmentation": "none", "precision": "fp32"}
    return {**quick, "devices": "cpu", "eval_split": 0.15, "val_split": 0.15, **changes}


def start(name: str, model: Path | str, **changes: object) -> RunFolder:
    """A validated run on the dataset `shapes`."""
    folder = RunFolder.create(FinetuningRun(name=name, settings=settings(model=str(model), **changes)))
    run_stage("validate", name)
    return folder


def validations(folder: RunFolder) -> list[tuple[float, float, float]]:
    """Epoch, mean loss and recall of each validation, in order."""
    events = (event for event in folder.events() if event.kind == "validation")
    return [tuple(event.values[name] for name in ("epoch", "loss", "mean_recall")) for event in events]


@pytest.fixture
def shapes(attune_home: Path, make_examples: Make, push: Push) -> DatasetReport:
    """48 pictures with a caption each, pushed as `shapes`."""
    return push("shapes", make_examples(48, captions=1))


def test_a_tiny_model_learns_a_small_dataset(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("first", tiny_model, epochs=12, learning_rate=3e-3, batch_size=12, precision="fp32")

    result = run_stage("train", "first").training

    losses = [loss for _, loss, _ in validations(folder)][1:]
    assert losses[-1] < 0.5 * losses[0]
    # 48 pictures: 7 held out, 6 of the other 41 to validate, 35 to train on, in 3 batches
    assert (result.steps, result.epochs, result.device, result.precision) == (36, 12, "cpu", "fp32")
    assert result.final_loss == losses[-1]
    assert result.pairs_per_second > 0
    # The chosen epoch is the first of the highest validation recall, the start among them.
    recalls = [recall for _, _, recall in validations(folder)]
    assert result.best_epoch == int(np.argmax(recalls))
    assert (result.start_recall, result.best_recall) == (recalls[0], max(recalls))
    before, after = (load_file(folder.checkpoints / f"{name}.safetensors") for name in ("start", "best"))
    assert (result.best_epoch == 0) == all(torch.equal(before[key], after[key]) for key in before)


def test_start_is_the_model_as_it_came_and_best_is_in_the_artifacts_precision(
    shapes: DatasetReport, tiny_model: Path
) -> None:
    folder = start("first", tiny_model, epochs=1, artifact_precision="fp16")
    run_stage("train", "first")

    original, kept = load_file(tiny_model / WEIGHTS), load_file(folder.checkpoints / "start.safetensors")
    assert all(torch.equal(original[key], kept[key]) for key in original)
    best = load_file(folder.checkpoints / "best.safetensors")
    assert {value.dtype for value in best.values() if value.is_floating_point()} == {torch.float16}
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "best.safetensors",
        "last.pt",
        "start.safetensors",
    ]


def test_a_killed_training_resumes_to_the_same_weights_bit_by_bit(shapes: DatasetReport, tiny_model: Path) -> None:
    epochs = 8
    unbroken = start("unbroken", tiny_model, epochs=epochs, augmentation="light")
    run_stage("train", "unbroken")
    killed = start("killed", tiny_model, epochs=epochs, augmentation="light")

    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "attune", "train", "killed"])
    deadline = time.monotonic() + 60
    while len(validations(killed)) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    done = torch.load(killed.checkpoints / "last.pt", weights_only=True)["history"][-1]["epoch"]
    assert 1 <= done < epochs
    assert killed.load().state == "TRAINING"
    result = run_stage("train", "killed").training

    # An epoch that was validated and not saved is done again: the last event of each epoch counts.
    again = {epoch: (loss, recall) for epoch, loss, recall in validations(killed)}
    assert again == {epoch: (loss, recall) for epoch, loss, recall in validations(unbroken)}
    assert list(again) == list(range(epochs + 1))
    last = [torch.load(folder.checkpoints / "last.pt", weights_only=True) for folder in (unbroken, killed)]
    assert all(torch.equal(last[0]["model"][key], last[1]["model"][key]) for key in last[0]["model"])
    best = [load_file(folder.checkpoints / "best.safetensors") for folder in (unbroken, killed)]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])
    assert (result.steps, result.epochs) == (unbroken.load().training.steps, epochs)


def test_the_start_wins_if_training_makes_the_model_worse(shapes: DatasetReport, tiny_model: Path) -> None:
    good = start("good", tiny_model, epochs=10, learning_rate=3e-3, batch_size=12)
    run_stage("train", "good")
    clip = load_clip(str(tiny_model))
    clip.load_weights(good.checkpoints / "best.safetensors")
    clip.save_folder(good.path / "model")

    bad = start("bad", good.path / "model", epochs=2, learning_rate=1.0, warmup_ratio=0, batch_size=12)
    result = run_stage("train", "bad").training

    assert result.best_epoch == 0
    assert result.best_recall == result.start_recall == good.load().training.best_recall
    weights = [load_file(bad.checkpoints / f"{name}.safetensors") for name in ("start", "best")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_do(shapes: DatasetReport, tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    with torch.no_grad():
        next(clip.model.visual.parameters()).fill_(float("nan"))
    broken = tiny_model.parent / "broken"
    clip.save_folder(broken)
    folder = start("first", broken)

    with pytest.raises(TrainingError, match=r"The loss is nan at step 1 of 9\. Lower learning_rate \(now 0\.001\)"):
        run_stage("train", "first")

    run = folder.load()
    assert (run.state, run.error[:15]) == ("FAILED", "The loss is nan")
    assert run.finished_at
    assert [event.message for event in folder.events()][-1] == f"FAILED: {run.error}"
    # NaN is no perfect recall: all ranks are 6, the last of 6, so only recall@10 is 1 and the mean of @1, @5, @10 1/3
    assert [recall for _, _, recall in validations(folder)] == pytest.approx([1 / 3])


def test_a_run_that_failed_can_be_asked_again(shapes: DatasetReport, tiny_model: Path) -> None:
    fail(start("first", tiny_model, epochs=1), "the disk was full")

    run = run_stage("train", "first")

    assert (run.state, run.error, run.finished_at, run.training.epochs) == ("TRAINING", "", "", 1)
