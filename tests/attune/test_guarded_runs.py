"""Each guard of a training, provoked in a real one."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.errors import DataError, TrainingError, TrainingStopped
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport
from attune.stages import run_stage
from attune.training import checks
from attune.training.fit import fit
from attune.training.guards import recall
from attune.training.job import prepare
from tests.attune.trained import of_kind, start, validations


def stop_after(folder: RunFolder, steps: int) -> None:
    """Trains as many steps and stops there, as if asked to."""
    left = iter(range(steps - 1, -1, -1))
    with pytest.raises(TrainingStopped):
        fit(prepare(folder, check_settings(folder.load().settings), stop=lambda: next(left) == 0))


def poison(path: Path) -> None:
    """Puts what is no number into a checkpoint's weights."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    state["model"]["visual.conv1.weight"][0] = math.nan
    torch.save(state, path)


def said(folder: RunFolder) -> list[str]:
    return [event.message for event in of_kind(folder, "guard")]


def test_three_steps_that_are_no_number_go_back_to_the_last_epoch_with_half_the_rate(model: Path) -> None:
    # 5 steps an epoch: stopped after the first of the second.
    folder = start("back", model, epochs=3, learning_rate=1e-4, warmup_ratio=0, scheduler="constant")
    stop_after(folder, 6)
    poison(folder.checkpoints / "within.pt")

    result = run_stage("train", "back").training

    lines = said(folder)
    assert [line.partition(":")[0] for line in lines[:2]] == [
        f"the loss is nan and the gradient norm nan at step {step}" for step in (7, 8)
    ]
    assert "for 3 steps in a row: back to the last checkpoint, with 0.5 times the learning rate (return 1 of 3)" in lines[2]
    assert lines[3:] == ["back to epoch 2, step 0; learning rate x 0.5"]
    assert of_kind(folder, "progress")[-1].values["learning_rate"] == pytest.approx(0.5e-4)
    assert (result.epochs, result.steps) == (3, 15)
    assert [epoch for epoch, _, _ in validations(folder)] == [0, 1, 2, 3]
    assert all(value.isfinite().all() for value in load_file(folder.checkpoints / "chosen.safetensors").values())


def test_a_checkpoint_that_is_broken_itself_ends_the_run_after_three_returns(model: Path) -> None:
    folder = start("broken", model, epochs=3, learning_rate=1e-4)
    stop_after(folder, 6)
    poison(folder.checkpoints / "last.pt")
    (folder.checkpoints / "within.pt").unlink()

    with pytest.raises(TrainingError, match=r"after 3 returns to the last checkpoint with half the learning rate each.*Set"):
        run_stage("train", "broken")

    assert folder.load().state == "FAILED"
    backs = [line for line in said(folder) if line.startswith("back to epoch")]
    assert backs == [f"back to epoch 2, step 0; learning rate x {rate}" for rate in ("0.5", "0.25", "0.125")]


def test_one_batch_that_is_no_number_is_left_out(model: Path) -> None:
    folder = start("skip", model, epochs=2, learning_rate=1e-4, lock_image=True)
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: False)
    assert job.feed.image_table is not None
    job.feed.image_table[0] = math.nan  # one picture: one of the 5 batches of each epoch

    fit(job)

    bad = [next(n for n, rows in enumerate(job.feed.plan(epoch)) if 0 in rows) + 5 * (epoch - 1) + 1 for epoch in (1, 2)]
    assert [line.partition(" and ")[0] for line in said(folder)] == ["the loss is nan"] * 2
    assert [event.values["step"] for event in of_kind(folder, "guard")] == bad
    assert (job.guards.step.taken, job.guards.step.skipped, job.guards.rate_factor) == (8, 2, 1)
    assert all(parameter.isfinite().all() for parameter in job.clip.model.parameters())
    assert all(math.isfinite(loss) for _, loss, _ in validations(folder))


def test_a_gradient_that_is_no_number_is_left_out_though_its_loss_is_one(model: Path) -> None:
    folder = start("overflow", model, epochs=2, learning_rate=1e-4)
    job = prepare(folder, check_settings(folder.load().settings))
    passes = itertools.count(1)  # the estimate's first: no step, and cleared away
    job.clip.model.text_projection.register_hook(lambda gradient: gradient * (math.inf if next(passes) == 6 else 1))

    fit(job)

    (line,) = said(folder)
    assert line.startswith("the loss is ")
    assert "nan" not in line.partition(" and ")[0]
    assert "and the gradient norm nan" in line or "and the gradient norm inf" in line
    assert (job.guards.step.taken, job.guards.step.skipped) == (9, 1)
    assert all(parameter.isfinite().all() for parameter in job.clip.model.parameters())
    assert all(math.isfinite(loss) for _, loss, _ in validations(folder))


def test_random_weights_at_chance_to_the_end_say_so(tiny_vit: Path, shapes: DatasetReport) -> None:
    wild = {"learning_rate": 0.3, "warmup_ratio": 0, "early_stopping_patience": 0}
    folder = start("late", f"{tiny_vit}#scratch", epochs=8, **wild)  # 24 steps, all of one answer

    run_stage("train", "late")

    assert [line for line in said(folder) if line.startswith("to the end the loss was within 2% of ln(batch)")]


def test_a_step_that_is_left_out_leaves_running_statistics_as_they_were(shapes: DatasetReport, tiny_model: Path) -> None:
    # 35 pictures in 2 batches, too few for a return to the last checkpoint.
    folder = start("skip", tiny_model, epochs=1, batch_size=32, lock_text=True)
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: False)
    assert job.feed.text_table is not None
    before = {name: value.clone() for name, value in job.clip.model.state_dict().items() if "running" in name}
    job.feed.text_table[:] = math.nan

    with pytest.raises(TrainingError, match=r"No step was taken: in all 2 the loss"):
        fit(job)

    after = job.clip.model.state_dict()
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_collapse_starts_over_once_and_then_ends_the_run_with_what_to_do(model: Path) -> None:
    folder = start("collapse", model, learning_rate=1.0, warmup_ratio=0)

    with pytest.raises(TrainingError, match=r"are all alike after epoch 1: .* is a collapse\. Set a lower learning_rate"):
        run_stage("train", "collapse")

    assert folder.load().state == "FAILED"
    assert sum("all alike after epoch 1" in line for line in said(folder)) == 1
    assert sum("starting over with 0.33 times the learning rate" in line for line in said(folder)) == 1


def test_a_start_that_knows_nothing_of_the_pairs_may_be_all_alike_on_its_way(
    model: Path, shifted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "ENOUGH_PICTURES", 10)
    wild = {"learning_rate": 1.0, "warmup_ratio": 0, "epochs": 2, "val_split": 0.4}
    folder = start("untaught", model, train_data="shifted", check_pairs=False, **wild)
    stop_after(folder, 1)  # and what was found of the start is not forgotten

    result = run_stage("train", "untaught").training

    assert "knows nothing of this data" in said(folder)[0]
    assert not [line for line in said(folder) if "all alike" in line]
    assert result.epochs == 2


def test_a_collapse_that_a_third_of_the_rate_avoids_costs_an_epoch_and_no_more(model: Path) -> None:
    folder = start("collapse-once", model, epochs=2, learning_rate=0.02, warmup_ratio=0)

    result = run_stage("train", "collapse-once").training

    assert any("all alike after epoch 1" in line for line in said(folder))
    assert result.epochs == 2


def test_captions_shifted_by_a_row_are_refused_before_training(model: Path, shifted: None) -> None:
    folder = start("refused", model, train_data="shifted", epochs=1)

    with pytest.raises(DataError, match="real pairs no better than shuffled ones.*Likely captions are shifted by a row"):
        run_stage("train", "refused")

    assert not of_kind(folder, "progress")
    assert not (folder.checkpoints / "last.pt").exists()


def test_shifted_captions_are_let_through_if_asked_for(model: Path, shifted: None) -> None:
    start("let-through", model, train_data="shifted", epochs=1, check_pairs=False)

    assert run_stage("train", "let-through").training.epochs == 1


def test_right_captions_pass(model: Path) -> None:
    folder = start("right", model, epochs=1)

    run_stage("train", "right")

    assert "p = 0.001" in next(event.message for event in of_kind(folder, "check") if event.message.startswith("pairs"))


FALLING = {"epochs": 3, "learning_rate": 1e-2}
"""Enough to make the model that knows the shapes clearly worse, and not enough for a collapse."""


def test_a_fall_at_the_first_check_starts_over_once_with_a_third_of_the_rate(model: Path) -> None:
    folder = start("fall", model, **FALLING)

    result = run_stage("train", "fall").training

    (line,) = said(folder)
    first, fallen, *rest = validations(folder)
    assert line == (
        f"validation mean recall fell from {first[2]:.4f} to {fallen[2]:.4f} in the first epoch: starting over with "
        "0.33 times the learning rate"
    )
    assert first[2] - fallen[2] > 0.1 * first[2]
    assert [epoch for epoch, _, _ in rest] == [1, 2, 3]
    assert rest[0] != fallen
    assert result.epochs == 3
    last = of_kind(folder, "progress")[-1].values
    recipe = result.recipe
    done = (14 - recipe["warmup_steps"]) / (15 - recipe["warmup_steps"])
    assert last["learning_rate"] == pytest.approx(1e-2 / 3 * (1 + math.cos(math.pi * done)) / 2)


def test_a_run_that_starts_over_does_so_from_the_start_though_it_was_stopped_on_the_way(model: Path) -> None:
    unbroken, stopped = (start(name, model, **FALLING) for name in ("start-over", "start-over-stopped"))
    run_stage("train", "start-over")

    stop_after(stopped, 3)
    run_stage("train", "start-over-stopped")

    assert said(stopped) == said(unbroken) != []
    assert validations(stopped) == validations(unbroken)
    assert not (stopped.checkpoints / "within.pt").exists()


def test_a_return_after_starting_over_keeps_the_lower_rate(model: Path) -> None:
    folder = start("both", model, **FALLING)
    stop_after(folder, 5 + 5 + 1)  # the first epoch, again, and a step of the second
    assert len(said(folder)) == 1
    poison(folder.checkpoints / "within.pt")

    run_stage("train", "both")

    assert said(folder)[-1] == "back to epoch 2, step 0; learning rate x 0.167"


@pytest.mark.parametrize("changes", [{}, {"multi_positive": True}, {"augmentation": "none", "lock_text": True}])
def test_micro_batches_give_the_losses_of_the_whole_batch(model: Path, changes: dict[str, object]) -> None:
    found = {}
    for micro in (None, 4):
        name = f"micro-{micro}-{'-'.join(changes)}"
        folder = start(name, model, epochs=3, learning_rate=3e-4, micro_batch_size=micro, **changes)
        run_stage("train", name)
        found[micro] = [loss for _, loss, _ in validations(folder)]

    assert found[4] == pytest.approx(found[None], abs=1e-4)
    assert found[4][1] != found[4][2]


def test_pictures_are_taken_in_pieces_if_a_whole_batch_would_not_fit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start("fits", model, epochs=1)
    run_stage("train", "fits")
    monkeypatch.setattr(checks, "ROOM", 1e-9)  # a few bytes

    folder = start("does-not-fit", model, epochs=1)
    run_stage("train", "does-not-fit")

    assert [event.message for event in of_kind(folder, "memory")] == [
        "a whole batch would not fit into memory: 1 pictures at a time"
    ]
    assert not of_kind(whole, "memory")
    assert "set a smaller micro_batch_size" in next(e.message for e in of_kind(folder, "check") if "steps" in e.message)
    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)
    assert state["position"]["micro_batch_size"] == 1
    assert [loss for _, loss, _ in validations(folder)] == pytest.approx(
        [loss for _, loss, _ in validations(whole)], abs=1e-4
    )


@pytest.mark.parametrize(("patience", "epochs"), [(2, 2), (0, 6)])
def test_training_stops_if_it_brings_nothing(model: Path, patience: int, epochs: int) -> None:
    name = f"patience-{patience}"
    start(name, model, epochs=6, learning_rate=1e-9, early_stopping_patience=patience)

    result = run_stage("train", name).training

    assert (result.epochs, result.steps, result.chosen) == (epochs, 5 * epochs, "start")
