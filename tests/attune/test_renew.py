"""Running statistics of batch norms that are taken anew."""

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
from torch import nn

from attune.data.pixels import PixelCache
from attune.models.clip import Clip
from attune.models.trainable import choose_trainable, train_mode
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from attune.training import renew
from attune.training.choose import choose
from attune.training.job import Job
from attune.training.position import Candidate
from attune.training.renew import renew_statistics
from attune.training.rewind import restore
from attune.training.tried import measured, retention
from tests.attune.matches import drawings
from tests.attune.trained import job_of, of_kind, start


@pytest.fixture
def job(shapes: DatasetReport, tiny_model: Path) -> Job:
    """A run ready to train a model with batch norms."""
    return job_of(start("renewed", tiny_model))


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


def learnt(weights: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in weights if "running" not in name and "num_batches" not in name]


def renewed(job: Job) -> bool:
    assert job.cache is not None
    return renew_statistics(job.clip, job.parts.train, job.cache, seed=0)


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def given(clip: Clip, cache: PixelCache, rows: np.ndarray) -> torch.Tensor:
    """What the first batch norm is given of these pictures, (pictures, channels, places)."""
    seen = []
    hook = first_norm(clip.model).register_forward_pre_hook(lambda _, values: seen.append(values[0]))
    clip.encode_images(cache.pixels[rows])
    hook.remove()
    return torch.cat(seen).flatten(2)


def test_they_are_of_the_training_pictures_as_they_are(job: Job) -> None:
    assert job.cache is not None
    norm = first_norm(job.clip.model)
    momentum, before = norm.momentum, {name: value.clone() for name, value in job.clip.model.state_dict().items()}
    norm.running_mean += 5
    train_mode(job.clip.model)

    assert renewed(job)

    found = given(job.clip, job.cache, job.cache.rows(job.parts.train.images))
    torch.testing.assert_close(norm.running_mean, found.mean((0, 2)), rtol=0, atol=0.01)
    torch.testing.assert_close(norm.running_var, found.var((0, 2)), rtol=0.1, atol=0.01)
    after = job.clip.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in learnt(before))
    assert norm.momentum == momentum
    assert job.clip.model.training


def test_of_many_pictures_some_are_enough(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.cache is not None
    monkeypatch.setattr(renew, "MOST_PICTURES", 7)
    renewed(job)
    rows = np.random.default_rng(0).permutation(np.unique(job.cache.rows(job.parts.train.images)))[:7]
    found = given(job.clip, job.cache, rows)
    torch.testing.assert_close(first_norm(job.clip.model).running_mean, found.mean((0, 2)))


def test_matches_count_as_the_pictures_that_they_belong_to(
    attune_home: Path, push: Callable[..., DatasetReport], tiny_model: Path
) -> None:
    push("drawings", drawings(48))
    job = job_of(start("matched", tiny_model, train_data="drawings"))
    assert renewed(job)
    assert job.cache is not None
    train = job.parts.train
    found = given(job.clip, job.cache, job.cache.rows([*train.images, *train.texts]))
    torch.testing.assert_close(first_norm(job.clip.model).running_mean, found.mean((0, 2)), rtol=0, atol=0.01)


def test_what_is_frozen_keeps_what_it_has(job: Job) -> None:
    norm = first_norm(job.clip.model)
    norm.weight.requires_grad_(False)
    norm.bias.requires_grad_(False)
    before = norm.running_mean.clone()
    assert renewed(job)
    assert torch.equal(norm.running_mean, before)

    before = statistics(job.clip.model)
    choose_trainable(job.clip.model, lock_image=True, lock_text=False, last_blocks=None)
    assert not renewed(job)
    assert all(torch.equal(value, before[name]) for name, value in statistics(job.clip.model).items())


def test_a_run_exports_weights_with_statistics_anew(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("trained", f"{tiny_model}#scratch", epochs=12, learning_rate=3e-3, artifact_precision="fp32")
    result = run_stage("train", "trained").training

    (said,) = of_kind(folder, "statistics")
    assert said.message.startswith("batch norms with statistics of unchanged pictures: validation mean recall")
    chosen, best = load_file(folder.chosen_weights), load_file(folder.checkpoints / "best.safetensors")
    assert result.chosen_share == 1
    assert all(torch.equal(chosen[name], best[name]) for name in learnt(best))
    assert not any(torch.equal(chosen[name], best[name]) for name in best if name.endswith("running_mean"))


def test_they_are_left_as_they_were_if_another_figure_is_lower(shapes: DatasetReport, tiny_model: Path) -> None:
    callbacks = [{"kind": "best_model_checkpoint", "monitor": "val_loss"}]
    settings = {"epochs": 12, "learning_rate": 3e-3, "callbacks": callbacks, "interpolation": False}
    folder = start("by-loss", f"{tiny_model}#scratch", **settings)
    run_stage("train", "by-loss")

    (said,) = of_kind(folder, "statistics")
    (before,) = (event for event in of_kind(folder, "choice") if event.values["share"] == 1)
    losses = [float(event.message.partition("val_loss ")[2].partition(",")[0]) for event in (before, said)]
    assert said.message.endswith(", not taken") == (losses[1] > losses[0])


@pytest.mark.parametrize(
    "changes",
    [{"lora_rank": 8, "learning_rate": 0.03}, {"lock_image": True}, {"callbacks": [{"kind": "wise_ft", "alpha": 1}]}],
)
def test_they_are_left_as_they_were_where_nothing_is_to_change(
    shapes: DatasetReport, tiny_model: Path, changes: dict[str, object]
) -> None:
    quick = {"epochs": 12, "learning_rate": 3e-3, "val_split": 0.4, "check_pairs": False}
    folder = start("left", tiny_model, **{**quick, **changes})
    assert run_stage("train", "left").training.chosen_share > 0
    assert not of_kind(folder, "statistics")


def test_they_are_left_as_they_were_if_that_is_clearly_better(
    shapes: DatasetReport, tiny_model: Path, tmp_path: Path
) -> None:
    folder = start("odd", f"{tiny_model}#scratch", epochs=12, learning_rate=3e-3, val_split=0.4, artifact_precision="fp32")
    run_stage("train", "odd")
    job = job_of(folder)
    assert restore(job)
    assert job.cache is not None
    np.save(tmp_path / "black.npy", np.zeros_like(job.cache.pixels))
    job.cache.pixels = np.load(tmp_path / "black.npy", mmap_mode="r")  # statistics of these fit no picture

    found = choose(job)

    said = of_kind(folder, "statistics")[-1]
    assert said.message.endswith(", not taken")
    assert found.mean_recall > said.values["mean_recall"]
    chosen, best = load_file(folder.chosen_weights), load_file(folder.checkpoints / "best.safetensors")
    assert all(torch.equal(chosen[name], value) for name, value in best.items())


def test_they_are_left_as_they_were_if_they_lose_what_must_be_kept(
    shapes: DatasetReport,
    tiny_model: Path,
    push: Callable[..., DatasetReport],
    make_examples: Callable[..., list[TrainingExample]],
) -> None:
    push("others", make_examples(96)[60:])
    job = job_of(start("kept", tiny_model, retention_data="others"))
    weights = {name: value.clone() for name, value in job.clip.model.state_dict().items()}
    found = measured(job, weights)
    job.position.candidates = [Candidate(0, "start", found.worth - 1)]

    taken, _ = renew.renewed(job, weights, found, found, kept=0)
    least = retention(job, taken)
    same, as_before = renew.renewed(job, weights, found, found, kept=least + 1e-6)

    assert taken is not weights
    assert same is weights
    assert as_before is found
    assert of_kind(job.folder, "statistics")[-1].message.endswith(", not taken")


@pytest.mark.parametrize("killed_at", ["choice", "statistics"])
def test_a_training_killed_while_it_chooses_chooses_the_same_when_it_goes_on(
    shapes: DatasetReport, tiny_model: Path, killed_at: str
) -> None:
    settings = {"epochs": 12, "learning_rate": 3e-3, "artifact_precision": "fp32"}
    whole, killed = (start(name, f"{tiny_model}#scratch", **settings) for name in ("whole", "killed"))
    train = [sys.executable, "-m", "attune", "train"]
    subprocess.run([*train, "whole"], check=True)
    with subprocess.Popen([*train, "killed"]) as process:
        while process.poll() is None and not of_kind(killed, killed_at):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    subprocess.run([*train, "killed"], check=True)

    for kind in ("choice", "statistics", "result"):
        assert [event.message for event in of_kind(killed, kind)] == [event.message for event in of_kind(whole, kind)]
    first, second = load_file(whole.chosen_weights), load_file(killed.chosen_weights)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
