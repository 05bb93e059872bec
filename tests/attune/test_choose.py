from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.models.open_clip_files import WEIGHTS
from attune.models.weights import save_weights
from attune.stages import run_stage
from attune.training.average import between
from attune.training.choose import choose
from attune.training.job import Job, prepare
from attune.training.position import Candidate
from attune.training.tried import measured
from tests.attune.trained import of_kind, start

Weights = dict[str, torch.Tensor]


def noise(weights: Weights) -> Weights:
    """As far from zero as the weights are, each in another direction."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) * (value.std() if value.numel() > 1 else 0)
        for name, value in weights.items()
    }


def job_between(name: str, model: Path, from_start: float, from_best: float, **changes: object) -> Job:
    """A job whose start and best weights are those of the model, but for so much noise; the recalls are measured."""
    folder = start(name, model, **changes)
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: False)
    known = load_file(model / WEIGHTS)
    direction = noise(known)
    for path, amount in ((job.checkpoints.start, from_start), (job.checkpoints.best, from_best)):
        save_weights(path, {key: value + amount * direction[key] for key, value in known.items()})
    return job


def recall_of(job: Job, path: Path) -> float:
    return measured(job, load_file(path)).mean_recall


def set_candidates(job: Job) -> None:
    job.position.candidates = [
        Candidate(0, "start", recall_of(job, job.checkpoints.start)),
        Candidate(1, "weights", recall_of(job, job.checkpoints.best)),
    ]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_lies_between_wins_if_it_is_better_than_both_ends(model: Path, precision: str) -> None:
    # The start is the model and 1.5 of noise, the end the model less 1.0 of it: at a share of 0.6 none is left.
    job = job_between(f"between-{precision}", model, 1.5, -1.0, artifact_precision=precision)
    set_candidates(job)
    ends = [candidate.mean_recall for candidate in job.position.candidates]
    assert ends[0] < ends[1]

    chosen = choose(job)

    assert (chosen.kind, chosen.share) == ("interpolated", 0.6)
    assert chosen.mean_recall > max(ends)
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    expected = between(load_file(job.checkpoints.start), load_file(job.checkpoints.best), 0.6)
    written = load_file(job.checkpoints.chosen)
    assert all(torch.equal(value, expected[name].to(dtype)) for name, value in written.items())
    assert list(written) == list(expected)


def test_without_interpolation_only_the_ends_are_looked_at(model: Path) -> None:
    job = job_between("ends", model, 1.5, -1.0, interpolation=False)
    set_candidates(job)

    chosen = choose(job)

    assert (chosen.kind, chosen.share) == ("weights", 1.0)
    assert [event.values["share"] for event in of_kind(job.folder, "choice")] == [1.0, 0.0]


def test_the_trained_weights_win_if_they_are_the_best(model: Path) -> None:
    job = job_between("trained", model, 0.8, 0.0)
    set_candidates(job)

    assert choose(job).share == 1.0

    written, best = load_file(job.checkpoints.chosen), load_file(job.checkpoints.best)
    assert all(torch.equal(value, best[name]) for name, value in written.items())


def test_the_start_wins_if_nothing_was_better_and_nothing_else_is_tried(model: Path) -> None:
    job = job_between("start", model, 0.0, 0.8)
    set_candidates(job)
    save_weights(job.checkpoints.best, load_file(job.checkpoints.start))  # the best so far, as training leaves it
    assert job.position.best.kind == "start"

    chosen = choose(job)

    assert (chosen.kind, chosen.share, chosen.mean_recall) == ("start", 0.0, job.position.start.mean_recall)
    assert not of_kind(job.folder, "choice")
    written, first = load_file(job.checkpoints.chosen), load_file(job.checkpoints.start)
    assert all(torch.equal(value, first[name]) for name, value in written.items())


def test_weights_that_forget_what_must_be_kept_are_not_chosen(model: Path, shifted: None) -> None:
    found = {}
    for most in (1.0, 0.02):
        name = f"forget-at-most-{most}"
        folder = start(
            name,
            model,
            train_data="shifted",
            retention_data="shapes",
            retention_max_drop=most,
            check_pairs=False,
            epochs=30,
            learning_rate=2e-4,
            early_stopping_patience=0,
        )
        found[most] = run_stage("train", name).training
        refused = [event for event in of_kind(folder, "choice") if "loses more than" in event.message]
        assert bool(refused) == (most < 1)
        if refused:
            assert "but it loses more than 0.02 on retention_data" in refused[0].message
            assert refused[0].values["share"] == 1.0

    assert found[1.0].chosen_share == 1 or found[1.0].best_recall > found[1.0].start_recall
    assert found[0.02].chosen_share < found[1.0].chosen_share
    assert found[0.02].best_recall < found[1.0].best_recall
