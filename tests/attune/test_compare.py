"""Weights that are higher on validation by no more than chance do not win over later ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.evaluation.measure import measure
from attune.metrics import worth
from attune.schemas import DatasetReport
from attune.training.choose import choose
from attune.training.compare import is_clearly_behind, of_items
from attune.training.fit import fit
from attune.training.job import prepare
from attune.training.position import Candidate, Position
from tests.attune.test_choose import job_between
from tests.attune.trained import start


def found(epoch: int, values: list[float], is_behind: bool = False) -> Candidate:
    kind = "weights" if epoch else "start"
    return Candidate(epoch, kind, sum(values) / len(values), of_items=torch.tensor(values), is_behind=is_behind)


def test_what_the_items_add_is_the_figure_that_weights_are_chosen_by(model: Path) -> None:
    folder = start("chance-items", model)
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: False)
    validation = job.parts.validation
    uneven = replace(validation, captions=[captions * (1 + row % 3) for row, captions in enumerate(validation.captions)])

    for pairs in (validation, uneven):
        measurement = measure(job.clip, pairs, job.validation_cache)
        values = of_items(measurement, pairs)
        assert values is not None
        assert len(values) == len(pairs)
        assert values.mean().item() == pytest.approx(worth(measurement.metrics)[1], abs=1e-6)


@pytest.mark.parametrize(
    ("values", "behind"),
    [
        ([0.4] * 4, True),  # each is lower
        ([0.6, 0.5, 0.5, 0.3], False),  # by 0.1 in all, and one is higher
        ([0.5] * 4, False),
    ],
)
def test_a_candidate_is_behind_if_that_is_clear_of_the_items(values: list[float], behind: bool) -> None:
    highest = found(1, [0.5] * 4)

    assert is_clearly_behind(found(2, values), highest) is behind
    assert is_clearly_behind(replace(found(2, values), figure=0.1), highest)  # another figure was asked for
    assert is_clearly_behind(replace(found(2, values), of_items=None), highest)  # as with scores


def test_the_best_is_the_last_that_is_not_behind_the_highest_and_better_than_the_start() -> None:
    first, highest = found(0, [0.2, 0.2]), found(2, [0.6, 0.4])
    earlier, later = found(1, [0.4, 0.5]), found(3, [0.4, 0.5])
    behind, poor = found(4, [0.3, 0.3], is_behind=True), found(5, [0.2, 0.1])

    for candidates, epoch in (
        ([first, earlier, highest], 2),
        ([first, earlier, highest, later], 3),
        ([first, earlier, highest, later, behind], 3),
        ([first, highest, behind], 2),
        ([first, highest, poor], 2),
        ([highest, later, behind], 2),  # where the start is the highest nothing is better than it
    ):
        assert Position(candidates=candidates).best.epoch == epoch


def test_a_share_of_the_weights_wins_only_if_it_is_clearly_better_than_all_of_them(model: Path) -> None:
    # At a share of 0.6 no noise is left, and every caption of shapes and colours is found.
    for name, spread, share in (("clear", 0.0, 0.6), ("luck", 5.0, 1.0)):
        job = job_between(f"chance-{name}", model, 1.5, -1.0)
        count = len(job.parts.validation)
        level = torch.full((count,), 0.1)
        wide = level + spread * torch.linspace(-1, 1, count)
        job.position.candidates = [
            Candidate(0, "start", 0.05),
            Candidate(1, "weights", 0.1, of_items=wide, is_behind=False),
        ]
        assert choose(job).share == share


def test_a_run_says_that_another_epoch_was_higher(model: Path) -> None:
    job = job_between("chance-said", model, 1.5, 0.0, interpolation=False)
    job.position.candidates = [found(0, [0.0, 0.2]), found(1, [0.6, 0.4]), found(2, [0.4, 0.5])]

    assert (choose(job).share, job.position.best.epoch) == (1.0, 2)
    messages = [event.message for event in job.folder.events()]
    assert "epoch 2 counts as the best with 0.4500: the 0.5000 of epoch 1 may be higher by chance" in messages


def test_the_weights_of_the_best_epoch_are_kept(shapes: DatasetReport, tiny_model: Path) -> None:
    callbacks = [{"kind": "training_checkpoint", "last_k_epochs": 5}]
    folder = start(
        "chance-kept", tiny_model, epochs=5, learning_rate=1e-3, ema_decay=0, interpolation=False, callbacks=callbacks
    )
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: False)
    fit(job)

    best = job.position.best
    kept = "start" if best.kind == "start" else f"epoch-{best.epoch}"
    expected, written = (load_file(folder.checkpoints / f"{name}.safetensors") for name in (kept, "best"))
    assert all(torch.equal(value, written[name]) for name, value in expected.items())
    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)["position"]
    assert Position.from_state(state).best == best
