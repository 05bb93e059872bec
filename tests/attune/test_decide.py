"""A run's recipe outlives the process that began it, and the version of Attune."""

import json
from pathlib import Path

import pytest
import torch

from attune.errors import TrainingError, TrainingStopped
from attune.runs.life_cycle import retry
from attune.schemas import DatasetReport
from attune.stages import run_stage
from attune.training.decide import KEPT
from attune.training.fit import fit
from tests.attune.trained import job_of, start


def test_training_goes_on_with_the_recipe_it_began_with(
    shapes: DatasetReport, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a later version's rules would make of the same settings."""
    whole, broken = (start(name, tiny_model, learning_rate="auto", ema_decay=0.9) for name in ("whole", "broken"))
    run_stage("train", "whole")

    job = job_of(broken)
    job.stop = lambda: job.step > 3
    with pytest.raises(TrainingStopped):
        fit(job)
    monkeypatch.setattr("attune.training.recipe.SCRATCH_RATE", 1e-5)
    monkeypatch.setattr("attune.training.recipe.MOST_STRETCH", 1.0)
    monkeypatch.setattr("attune.training.recipe.REFERENCE_PARAMETERS", 1.0)
    start("anew", tiny_model, learning_rate="auto", ema_decay=0.9)
    results = [run_stage("train", name).training for name in ("broken", "anew")]

    expected = whole.load().training.recipe
    assert results[0].recipe == expected
    assert results[1].recipe["learning_rate"] < expected["learning_rate"]  # the rules are others now
    ends = [torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"] for folder in (whole, broken)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_recipe_of_other_fields_is_refused_and_a_retry_begins_anew(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("older", tiny_model, epochs=1)
    recipe = job_of(folder).recipe
    file = folder.checkpoints / KEPT
    kept = json.loads(file.read_text())
    del kept["epochs"]
    file.write_text(json.dumps({**kept, "momentum": 0.9}))

    with pytest.raises(TrainingError, match=r"another version of Attune.* in epochs, momentum\. .*retry older"):
        run_stage("train", "older")

    retry(folder)
    run_stage("validate", "older")
    result = run_stage("train", "older").training
    assert result.recipe == {**recipe.record(), "micro_batch_size": None}
