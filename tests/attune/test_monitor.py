"""Callbacks that decide: when training ends, which weights are the best, which are kept, which are exported."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attune.callback_settings import MONITORS, EarlyStopping
from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.errors import TrainingStopped
from attune.evaluation.measure import Measurement, measure
from attune.kinds import IMAGE, kind_of_names
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun
from attune.stages import run_stage
from attune.training.average import between
from attune.training.choose import choose, measured
from attune.training.fit import fit
from attune.training.job import prepare
from attune.training.monitor import epochs_in_vain, val_loss
from attune.training.position import Candidate
from attune.validation import validate
from tests.attune.test_choose import job_between
from tests.attune.test_training import assert_equal, weights
from tests.attune.trained import job_of, of_kind, start

KEPT = "epoch-*.safetensors"


def candidates(*losses: float, name: str = "val_loss") -> list[Candidate]:
    """One of each epoch, from the start on."""
    return [
        Candidate(epoch, "weights" if epoch else "start", 0.5, figures={name: loss}) for epoch, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "given", "in_vain"),
    [
        ((3.0,), {}, 0),
        ((3.0, 2.0, 1.0), {}, 0),
        ((3.0, 2.0, 2.0, 2.5), {}, 2),
        ((3.0, 3.5), {}, 1),  # no better than the start
        ((3.0, 2.9, 2.8), {"min_delta": 0.15}, 0),  # together it is enough
        ((3.0, 2.9, 2.85), {"min_delta": 0.15}, 2),
        ((3.0, 2.5, 2.0, 1.4), {"baseline": 1.5}, 0),
        ((3.0, 2.5, 2.0), {"baseline": 1.5}, 2),
        ((math.nan, 2.5, 2.0, 2.1), {"monitor": "train_loss"}, 1),  # the start has none
        ((0.1, 0.2, 0.15, 0.2), {"monitor": "image_to_text_recall@5"}, 2),
    ],
)
def test_epochs_in_vain_are_counted_from_the_last_that_was_better(
    losses: tuple[float, ...], given: dict[str, object], in_vain: int
) -> None:
    callback = EarlyStopping(kind="early_stopping", **given)

    assert epochs_in_vain(candidates(*losses, name=callback.monitor), callback) == in_vain


def test_an_epochs_averaged_weights_count_as_well() -> None:
    ones = candidates(3.0, 3.5)
    ones.append(Candidate(1, "average", 0.5, figures={"val_loss": 2.5}))

    assert epochs_in_vain(ones, EarlyStopping(kind="early_stopping")) == 0


def test_the_validation_loss_is_that_of_clip_in_pieces() -> None:
    generator = np.random.default_rng(0)
    images, texts = (generator.standard_normal((count, 8)).astype(np.float32) for count in (6, 9))
    images, texts = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (images, texts))
    captions = [["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h"], ["i"]]
    owner = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5])
    pairs = Pairs("", list("abcdef"), captions, list("abcdef"), [])
    found = val_loss(Measurement({}, {}, images, texts), pairs, 10.0, batch_size=3)

    pieces = []
    for rows in ([0, 1, 2], [3, 4, 5]):
        mine = np.isin(owner, rows)
        logits = 10.0 * images[rows].astype(np.float64) @ texts[mine].T
        right = np.array(rows)[:, None] == owner[mine]
        to_text = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        to_image = logits - np.log(np.exp(logits).sum(0, keepdims=True))
        pieces.append(-((to_text * right).sum(1) / right.sum(1)).mean() / 2 - (to_image * right).sum(0).mean() / 2)
    assert found == pytest.approx(np.mean(pieces), abs=1e-5)


@pytest.mark.parametrize(
    ("callback", "epochs"),
    [
        ({"patience": 2, "monitor": "mean_recall"}, 2),
        ({"patience": 3, "monitor": "val_loss", "min_delta": 100}, 3),
        ({"patience": 2, "monitor": "train_loss", "baseline": 0}, 2),
        ({"patience": 1, "monitor": "val_loss", "baseline": 1000, "min_delta": -0.0}, 6),
    ],
)
def test_training_stops_early_by_the_figure_that_is_monitored(model: Path, callback: dict[str, object], epochs: int) -> None:
    name = "-".join(str(value) for value in callback.values())
    given = {**callback, "kind": "early_stopping"}
    rate = 1e-9 if epochs < 6 else 1e-6
    folder = start(name, model, train_data="shifted", check_pairs=False, epochs=6, learning_rate=rate, callbacks=[given])

    assert run_stage("train", name).training.epochs == epochs

    said = [event.message for event in folder.events() if event.message.startswith("stopped after epoch")]
    assert said == ([] if epochs == 6 else [f"stopped after epoch {epochs} of 6: {callback['monitor']} got no better"])
    assert "early_stopping_patience" not in folder.load().settings


@pytest.fixture(autouse=True)
def _shifted(shifted: None) -> None:
    """Data that a model must unlearn what it knows for."""


@pytest.mark.parametrize("monitor", ["val_loss", "image_to_text_recall@1", "text_to_image_mrr"])
def test_the_best_is_chosen_by_the_monitored_figure_and_never_worse_in_it_than_the_start(model: Path, monitor: str) -> None:
    callbacks = [{"kind": "best_model_checkpoint", "monitor": monitor}]
    folder = start(f"by-{monitor[:8]}", model, epochs=4, learning_rate=3e-3, interpolation=False, callbacks=callbacks)
    result = run_stage("train", folder.reference).training

    events = [event for event in folder.events() if event.kind in ("validation", "average")]
    values = {(event.kind, event.values["epoch"]): event.values[monitor] for event in events}
    better = min if monitor == "val_loss" else max
    best = better(values.values())
    assert result.best_epoch == next(epoch for (_, epoch), value in values.items() if value == best)
    job = job_of(folder)
    job.position.candidates = [Candidate(0, "start", 0.0)]
    chosen = measured(job, weights(folder, "chosen"))
    assert chosen.figures[monitor] == pytest.approx(best, abs=1e-5)


def test_a_figure_may_choose_other_weights_than_mean_recall(model: Path) -> None:
    callbacks = [{"kind": "best_model_checkpoint", "monitor": "val_loss"}]
    job = job_between("other", model, 0.0, 0.0, callbacks=callbacks, interpolation=False)
    position = job.position
    position.candidates = [
        Candidate(0, "start", 0.5, figures={"val_loss": 2.0}, figure=-2.0),
        Candidate(1, "weights", 0.4, figures={"val_loss": 1.0}, figure=-1.0),
        Candidate(2, "weights", 0.9, figures={"val_loss": 3.0}, figure=-3.0),
    ]

    assert position.best.epoch == 1
    assert (choose(job).share, job.position.best.mean_recall) == (1.0, 0.4)
    assert "validation mean recall 0.4000, val_loss 1.0000" in of_kind(job.folder, "choice")[0].message


def test_the_weights_of_the_last_epochs_are_kept_over_a_resume(shapes: DatasetReport, tiny_model: Path) -> None:
    callbacks = [{"kind": "training_checkpoint", "last_k_epochs": 2}]
    plain, broken = (
        start(name, tiny_model, epochs=4, callbacks=callbacks, learning_rate=1e-4, early_stopping_patience=0)
        for name in ("plain", "broken")
    )
    fit(prepare(plain, check_settings(plain.load().settings), stop=lambda: False))
    for _ in range(20):
        try:
            fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: True))
            break
        except TrainingStopped:
            (broken.checkpoints / "epoch-4.safetensors").touch()  # as a process leaves it that was killed

    for folder in (plain, broken):
        assert sorted(path.name for path in folder.checkpoints.glob(KEPT)) == ["epoch-3.safetensors", "epoch-4.safetensors"]
    for epoch in (3, 4):
        assert_equal(weights(plain, f"epoch-{epoch}"), weights(broken, f"epoch-{epoch}"))
    last = torch.load(plain.checkpoints / "last.pt", weights_only=True)
    assert_equal(weights(plain, "epoch-4"), dict(last["model"]))


def of_wise_ft(name: str, model: Path, alpha: float, ends: tuple[float, float]) -> tuple[RunFolder, float]:
    """A run whose start and best have so much noise, and the share that was chosen."""
    job = job_between(name, model, *ends, callbacks=[{"kind": "wise_ft", "alpha": alpha}])
    recalls = [measured_recall(job, path) for path in (job.checkpoints.start, job.checkpoints.best)]
    job.position.candidates = [Candidate(0, "start", recalls[0]), Candidate(1, "weights", recalls[1])]
    return job.folder, choose(job).share


def measured_recall(job: object, path: Path) -> float:
    job.position.candidates = job.position.candidates or [Candidate(0, "start", 0.0)]  # type: ignore[attr-defined]
    return measured(job, load_file(path)).mean_recall  # type: ignore[arg-type]


def test_a_fixed_share_is_exported_though_another_is_better(model: Path) -> None:
    # At a share of 0.6 no noise would be left.
    folder, share = of_wise_ft("wise", model, 0.9, (1.5, -1.0))

    assert share == 0.9
    assert [event.values["share"] for event in of_kind(folder, "choice")] == [0.9, 0.0]
    first, best = (load_file(folder.checkpoints / f"{name}.safetensors") for name in ("start", "best"))
    assert_equal(weights(folder, "chosen"), between(first, best, 0.9))


def test_a_fixed_share_that_is_worse_than_the_start_is_not_exported_and_said_so(model: Path) -> None:
    _, share = of_wise_ft("worse", model, 0.5, (0.25, 0.0))
    assert share == 0.5  # halfway there is half of the noise

    job = job_between("too-far", model, 0.0, 3.0, callbacks=[{"kind": "wise_ft", "alpha": 0.5}])
    first = load_file(job.checkpoints.start)
    job.position.candidates = [Candidate(0, "start", 0.9), Candidate(1, "weights", 0.95)]
    assert choose(job).kind == "start"
    said = [event.message for event in job.folder.events() if event.message.startswith("WiSEFTCallback: ")]
    assert said == ["WiSEFTCallback: the start is exported, not the share of 0.5 that was asked for, which is worse"]
    assert_equal(weights(job.folder, "chosen"), first)


def test_two_processes_stop_choose_and_keep_alike(shapes: DatasetReport, tiny_vit: Path) -> None:
    callbacks = [
        {"kind": "early_stopping", "patience": 2, "baseline": 0.0},  # no loss is below
        {"kind": "best_model_checkpoint"},
        {"kind": "training_checkpoint"},
    ]
    folder = start("two", tiny_vit, epochs=5, processes=2, callbacks=callbacks)

    result = run_stage("train", "two").training

    losses = [event.values["val_loss"] for event in of_kind(folder, "validation")]
    assert result.epochs == 2
    assert result.best_epoch == losses.index(min(losses))
    assert [path.name for path in folder.checkpoints.glob(KEPT)] == ["epoch-2.safetensors"]


def test_a_run_with_early_stopping_is_read_again_as_it_was_validated(
    shapes: DatasetReport, tiny_model: Path, make_examples: Callable[..., object]
) -> None:
    settings = {"model": str(tiny_model), "train_data": "shapes", "callbacks": [{"kind": "early_stopping", "patience": 3}]}

    fields = validate(FinetuningRun(settings=settings))

    assert check_settings(fields["settings"]).callbacks[0].patience == 3


def test_the_tiny_models_measurement_has_every_figure_that_can_be_monitored(model: Path) -> None:
    folder = start("figures", model, epochs=1, learning_rate=1e-6)
    run_stage("train", "figures")

    event = of_kind(folder, "validation")[1]
    of_pictures = {name for name in MONITORS if kind_of_names([name]) is IMAGE} - {"spearman", "pearson"}
    assert of_pictures - {"train_loss"} == set(event.values) - {"epoch", "loss", "logit_scale"}
    job = job_of(folder)
    first = measure(job.clip, job.parts.validation, job.validation_cache)
    scale = job.clip.model.logit_scale.exp().item()
    assert of_kind(folder, "validation")[0].values["val_loss"] == pytest.approx(
        val_loss(first, job.parts.validation, scale, job.recipe.batch_size), abs=1e-6
    )
