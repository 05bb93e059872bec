import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.errors import RunFailed, TrainingError, TrainingStopped
from attune.models.clip import load_clip
from attune.models.open_clip_files import WEIGHTS
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import fail, resume
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from tests.attune.trained import of_kind, start, validations

EPOCHS = 6


def weights(folder: RunFolder, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder.checkpoints / f"{name}.safetensors")


def checkpoint(folder: RunFolder, name: str = "last") -> dict[str, Any]:
    """All of it but time, and how long the history was: a run that was broken off has told of several starts."""
    state: dict[str, Any] = torch.load(folder.checkpoints / f"{name}.pt", weights_only=True)
    assert state["position"].pop("history") > 0
    assert state["position"].pop("progress")["total"] > 0
    return state


def assert_equal(one: Any, other: Any) -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def test_a_tiny_model_learns_a_small_dataset(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("first", f"{tiny_model}#scratch", epochs=12, learning_rate=3e-3, batch_size=12)

    result = run_stage("train", "first").training

    losses = [loss for _, loss, _ in validations(folder)][1:]
    assert losses[-1] < 0.6 * losses[0]
    # 48 pictures: 7 held out, 6 of the other 41 to validate, 35 to train on, in 3 batches
    assert (result.steps, result.epochs, result.device, result.precision) == (36, 12, "cpu", "fp32")
    assert result.final_loss == losses[-1]
    assert result.pairs_per_second > 0
    assert 0 < sum(result.time_shares.values()) <= 1
    assert result.recipe["total_steps"] == 36


def test_the_best_of_start_weights_averages_and_what_lies_between_is_chosen(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("first", f"{tiny_model}#scratch", epochs=12, learning_rate=3e-3, batch_size=12)
    result = run_stage("train", "first").training

    # 36 steps: 1 - 3 / 36 is the decay of an average over a third of them.
    assert result.recipe["ema_decay"] == pytest.approx(1 - 1 / 12, abs=1e-6)
    found = [*validations(folder), *validations(folder, "average")]
    assert [epoch for epoch, _, _ in found] == [*range(13), *range(1, 13)]
    highest = max(recall for _, _, recall in found)
    assert result.best_epoch >= min(epoch for epoch, _, recall in found if recall == highest) > 0
    shares = {event.values["share"]: event.values["mean_recall"] for event in of_kind(folder, "choice")}
    assert list(shares) == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert shares[1.0] in [recall for epoch, _, recall in found if epoch == result.best_epoch]
    assert shares[0.0] == result.start_recall
    assert shares[result.chosen_share] > result.start_recall
    (renewed,) = of_kind(folder, "statistics")  # 6 pictures tell nothing apart: it is taken
    assert result.best_recall == renewed.values["mean_recall"] > result.start_recall
    assert result.chosen in (("weights", "average") if result.chosen_share == 1 else ("interpolated",))
    before, best, chosen = (weights(folder, name) for name in ("start", "best", "chosen"))
    for name, value in chosen.items():
        if value.is_floating_point() and "running" not in name:
            expected = before[name] + result.chosen_share * (best[name] - before[name])
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_start_is_the_model_as_it_came_and_only_chosen_is_in_the_artifacts_precision(
    shapes: DatasetReport, tiny_model: Path
) -> None:
    folder = start("first", tiny_model, epochs=1, artifact_precision="fp16")
    run_stage("train", "first")

    assert_equal(load_file(tiny_model / WEIGHTS), weights(folder, "start"))
    kinds = {
        name: {value.dtype for value in weights(folder, name).values() if value.is_floating_point()}
        for name in ("start", "best", "chosen")
    }
    assert kinds == {"start": {torch.float32}, "best": {torch.float32}, "chosen": {torch.float16}}
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "best.safetensors",
        "chosen.safetensors",
        "last.pt",
        "optimizer.safetensors",
        "recipe.json",
        "start.safetensors",
    ]


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> Iterator[RunFolder]:
    """A training that nothing disturbed, with batch norm, augmentation and an average; its ATTUNE_HOME is the module's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("unbroken")))
        push("shapes", make_examples(48, captions=1))
        folder = long("unbroken", tiny_model)
        run_stage("train", "unbroken")
        yield folder


def long(name: str, model: Path) -> RunFolder:
    """A run of 9 steps an epoch."""
    return start(name, model, epochs=EPOCHS, augmentation="light", batch_size=4, ema_decay=0.9, self_distillation=0.4)


@pytest.mark.parametrize(
    ("how", "saved_within"),
    [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGTERM, True)],
    ids=["killed", "killed-in-a-long-epoch", "stopped"],
)
def test_an_interrupted_training_resumes_to_the_same_weights_bit_by_bit(
    unbroken: RunFolder, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, saved_within: bool
) -> None:
    monkeypatch.setenv("ATTUNE_HOME", str(unbroken.path.parents[2]))
    name = f"{how.name}-{saved_within}"
    folder = long(name, tiny_model)

    command = ["-W", "ignore", "-m", "attune", "train", name]
    if (how, saved_within) == (signal.SIGKILL, True):  # as if every step took ten minutes
        patched = (
            "import sys, attune.training.checkpoints as c, attune.__main__ as m; c.SECONDS_BETWEEN = 0; sys.exit(m.main())"
        )
        command = ["-W", "ignore", "-c", patched, "train", name]
    process = subprocess.Popen([sys.executable, *command])
    deadline = time.monotonic() + 300
    while len(validations(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, how)
    assert process.wait() == (os.EX_TEMPFAIL if how == signal.SIGTERM else -how)

    run = folder.load()
    assert (run.state, run.error, run.training.device) == ("TRAINING", "", "")
    within = (folder.checkpoints / "within.pt").exists()
    at = checkpoint(folder, "within" if within else "last")["position"]
    assert 1 < at["epoch"] <= EPOCHS
    assert within >= (how == signal.SIGTERM)  # killed between the epochs' ends there may be none
    assert (at["step"] > 0) == within
    assert within <= saved_within
    result = run_stage("train", name).training

    for kind in ("validation", "average"):
        again = {epoch: (loss, recall) for epoch, loss, recall in validations(folder, kind)}
        assert again == {epoch: (loss, recall) for epoch, loss, recall in validations(unbroken, kind)}
    assert list(again) == list(range(1, EPOCHS + 1))
    assert_equal(checkpoint(folder), checkpoint(unbroken))
    for name in ("start", "best", "chosen"):
        assert_equal(weights(folder, name), weights(unbroken, name))
    there = unbroken.load().training
    assert (
        (result.steps, result.epochs, result.chosen)
        == (there.steps, there.epochs, there.chosen)
        == (9 * EPOCHS, EPOCHS, there.chosen)
    )
    assert not (folder.checkpoints / "within.pt").exists()


def stopped_after_each_step(folder: RunFolder) -> list[str]:
    """Trains to the end, one step at a time; what was said at each stop."""
    settings, said = check_settings(folder.load().settings), []
    for _ in range(20):
        try:
            fit(prepare(folder, settings, stop=lambda: True))
            break
        except TrainingStopped as stopped:
            said.append(str(stopped))
    return said


@pytest.mark.parametrize(
    "changes", [{"lora_rank": 2}, {"lock_image": True, "hard_negatives": 1.0}, {"multi_positive": True}]
)
def test_every_step_can_be_the_last_before_a_break(
    attune_home: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
    tiny_vit: Path,
    changes: dict[str, object],
) -> None:
    push("shapes", make_examples(48))
    unbroken, broken = (
        start(name, tiny_vit, epochs=2, learning_rate=1e-4, ema_decay=0.9, **changes) for name in ("unbroken", "broken")
    )
    fit(prepare(unbroken, check_settings(unbroken.load().settings), stop=lambda: False))

    said = stopped_after_each_step(broken)

    assert [line.split(", ")[1][:17] for line in said] == [f"after step {step} of 6" for step in range(1, 7)]
    assert_equal(checkpoint(broken), checkpoint(unbroken))
    assert_equal(weights(broken, "best"), weights(unbroken, "best"))


def test_the_start_wins_if_training_makes_the_model_worse(model: Path) -> None:
    bad = start("bad", model, epochs=2, learning_rate=3e-3, interpolation=False, artifact_precision="fp16")

    result = run_stage("train", "bad").training

    assert max(recall for _, _, recall in validations(bad)[1:]) < result.start_recall
    assert (result.best_epoch, result.chosen, result.chosen_share) == (0, "start", 0)
    assert result.best_recall == result.start_recall
    assert_equal(weights(bad, "start"), weights(bad, "best"))
    assert_equal(
        {name: value.half() if value.is_floating_point() else value for name, value in weights(bad, "start").items()},
        weights(bad, "chosen"),
    )


def test_a_starting_model_that_gives_no_numbers_is_refused(shapes: DatasetReport, tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    with torch.no_grad():
        next(clip.model.visual.parameters()).fill_(float("nan"))
    broken = tiny_model.parent / "broken"
    clip.save_folder(broken)
    folder = start("first", broken)

    with pytest.raises(TrainingError, match=r"The starting model's embeddings of pictures are no numbers.*Choose another"):
        run_stage("train", "first")

    run = folder.load()
    assert (run.state, run.error[:30]) == ("FAILED", "The starting model's embedding")
    assert "learning_rate" not in run.error
    assert run.finished_at
    assert [event.message for event in folder.events()][-1] == f"FAILED: {run.error}"


def test_a_run_that_failed_is_trained_once_it_is_resumed(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("first", tiny_model, epochs=1)
    fail(folder, "the disk was full")
    with pytest.raises(RunFailed, match="the disk was full"):
        run_stage("train", "first")

    resume(folder)
    run = run_stage("train", "first")

    assert (run.state, run.error, run.finished_at, run.training.epochs) == ("TRAINING", "", "", 1)
