"""Each way to train, in a real run: that it trains, and what is different about it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.errors import DataError, SettingsError, TrainingStopped
from attune.losses.table import LOSSES
from attune.models.clip import load_clip
from attune.models.layers import locate
from attune.models.open_clip_files import WEIGHTS
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import STAGES, run_stage
from attune.training.fit import fit
from attune.training.job import Job, prepare
from tests.attune.trained import job_of, of_kind, start, validations
from tests.conftest import labelled_examples


@pytest.fixture
def pairs(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    """48 pictures with two captions each, pushed as `shapes`: 35 of them to train on."""
    return push("shapes", make_examples(48))


def train(name: str, model: Path, **changes: object) -> RunFolder:
    """A trained run of 2 epochs of 3 steps, at a rate at which a model of random weights stays whole."""
    folder = start(name, model, **{"epochs": 2, "learning_rate": 3e-4, "ema_decay": 0, **changes})
    run_stage("train", name)
    return folder


def last(folder: RunFolder) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"]
    return weights


def changed(folder: RunFolder) -> set[str]:
    """The parameters that training moved."""
    before, after = load_file(folder.checkpoints / "start.safetensors"), last(folder)
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def losses(folder: RunFolder) -> list[float]:
    return [loss for _, loss, _ in validations(folder)][1:]


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_stays_as_it_was_to_the_last_bit(
    pairs: DatasetReport, tiny_vit: Path, tiny_model: Path, tower: str, kind: str
) -> None:
    folder = train("locked", tiny_vit if kind == "vit" else tiny_model, **{f"lock_{tower}": True})

    before = load_file(folder.checkpoints / "start.safetensors")
    chosen = load_file(folder.checkpoints / "chosen.safetensors")
    locked = {name for name in before if name.startswith("visual.") == (tower == "image")} - {"logit_scale"}
    assert locked
    assert all(torch.equal(before[name], chosen[name]) for name in locked)  # running statistics too
    assert not changed(folder) & locked
    assert len(changed(folder)) > 5


def test_what_a_locked_tower_says_is_computed_once(pairs: DatasetReport, tiny_vit: Path) -> None:
    clip = load_clip(str(tiny_vit))

    image = job_of(start("image", tiny_vit, lock_image=True))
    text = job_of(start("text", tiny_vit, lock_text=True))

    assert image.feed.text_table is None
    assert text.feed.image_table is None
    rows = image.feed.plan(1)[0]
    own = image.cache.rows([image.parts.train.images[row] for row in rows])
    batch = image.feed.load(1, 0, rows)
    np.testing.assert_allclose(batch.images, clip.encode_images(image.cache.pixels[own]), atol=1e-6)
    assert not batch.texts.is_floating_point()

    batch = text.feed.load(1, 0, rows)
    captions = [clip.encode_texts(text.parts.train.captions[row]) for row in rows]
    for row, both in zip(batch.texts.numpy(), captions, strict=True):
        assert min(np.abs(both - row).max(axis=1)) < 1e-6
    assert batch.images.dtype == torch.uint8


@pytest.mark.parametrize(("tower", "change"), [("image", {"augmentation": "light"}), ("text", {"word_dropout": 0.3})])
def test_a_locked_tower_whose_inputs_change_is_asked_each_time(
    pairs: DatasetReport, tiny_vit: Path, tower: str, change: dict[str, object]
) -> None:
    folder = train("changing", tiny_vit, **{f"lock_{tower}": True, **change})

    job = job_of(folder)
    assert (job.feed.image_table, job.feed.text_table) == (None, None)
    assert {name.startswith("visual.") for name in changed(folder)} == {tower == "text", False}


@pytest.mark.parametrize("blocks", [0, 1])
def test_only_the_last_blocks_are_trained(pairs: DatasetReport, tiny_vit: Path, blocks: int) -> None:
    folder = train("last", tiny_vit, train_last_blocks=blocks, logit_scale="frozen")

    places = locate(load_clip(str(tiny_vit)).model)  # depths 0 to 3: embeddings, two blocks, what follows
    assert {places[name].depth for name in changed(folder)} == {3, *([2] if blocks else [])}
    assert {places[name].tower for name in changed(folder)} == {"image", "text"}


def test_low_rank_training_changes_matrices_alone_and_leaves_a_plain_model(pairs: DatasetReport, tiny_vit: Path) -> None:
    folder = start("lora", f"{tiny_vit}", epochs=12, learning_rate=1e-2, lora_rank=2, logit_scale="frozen")
    for stage in STAGES:
        run = run_stage(stage, "lora")

    assert run.state == "FINISHED"
    start_weights, artifact = load_file(tiny_vit / WEIGHTS), load_file(folder.artifact / WEIGHTS)
    assert list(artifact) == list(start_weights)
    assert run.training.chosen != "start"
    moved = {name for name, value in artifact.items() if not torch.equal(value, start_weights[name])}
    assert all("resblocks" in name and artifact[name].ndim == 2 for name in moved)
    assert len(moved) == 4 * 4  # attention in and out, MLP in and out, of four blocks
    for name in moved:
        change = artifact[name] - start_weights[name]
        found = torch.linalg.svdvals(change.double())
        assert found[2] < 1e-4 * found[0]  # rank 2

    model = open_clip.create_model(f"local-dir:{folder.artifact}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder.artifact}")(["a red circle on white"])
    clip = load_clip(str(tiny_vit))
    clip.load_weights(folder.chosen_weights)
    np.testing.assert_allclose(
        model.encode_text(tokens, normalize=True).detach(), clip.encode_texts(["a red circle on white"]), atol=1e-6
    )


def test_all_captions_of_a_picture_at_once(pairs: DatasetReport, tiny_vit: Path) -> None:
    folder = train("all", tiny_vit, multi_positive=True)

    job = job_of(folder)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])
    assert (len(batch.images), len(batch.texts)) == (12, 24)
    assert batch.positives is not None
    assert batch.positives.sum(1).tolist() == [2] * 12
    assert losses(folder) != losses(train("one", tiny_vit))


def likeness(job: Job, epoch: int) -> float:
    """Mean cosine of the pictures that meet in a batch, under the starting model."""
    assert job.feed.look_alikes is not None
    found = []
    for rows in job.feed.plan(epoch):
        cosines = job.feed.look_alikes[rows] @ job.feed.look_alikes[rows].T
        found.append((cosines.sum() - len(rows)) / (len(rows) * (len(rows) - 1)))
    return float(np.mean(found))


def test_in_half_of_the_epochs_pictures_meet_their_look_alikes(pairs: DatasetReport, tiny_vit: Path) -> None:
    folder = train("hard", tiny_vit, hard_negatives=0.5, batch_size=8, epochs=4)

    job = job_of(folder)
    assert min(likeness(job, 2), likeness(job, 4)) > max(likeness(job, 1), likeness(job, 3))
    for epoch in range(1, 5):
        assert sorted(np.concatenate(job.feed.plan(epoch))) == list(range(35))
    plain = train("plain", tiny_vit, batch_size=8, epochs=4)
    assert losses(folder)[0] == losses(plain)[0]  # the first epoch is an ordinary one
    assert losses(folder)[1] != losses(plain)[1]


def test_samplers_have_the_names_that_others_give_them(pairs: DatasetReport, tiny_vit: Path) -> None:
    plans = []
    for name, settings in (
        ("hard-share", {"hard_negatives": 1.0}),
        ("hard-batch", {"sampler": "hard-batch"}),
        ("random", {}),
        ("unique", {"sampler": "image-unique"}),
    ):
        plans.append(job_of(start(name, tiny_vit, **settings, batch_size=8)).feed.plan(1))

    for one, other in (plans[:2], plans[2:]):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert not all(set(a) == set(b) for a, b in zip(plans[0], plans[2], strict=True))


@pytest.mark.parametrize("hard_negatives", [0.0, 0.5])
def test_an_epoch_may_be_a_part_of_the_pictures(pairs: DatasetReport, tiny_vit: Path, hard_negatives: float) -> None:
    folder = train("part", tiny_vit, images_per_epoch=20, batch_size=8, epochs=3, hard_negatives=hard_negatives)

    job = job_of(folder)
    assert folder.load().training.steps == 9
    assert of_kind(folder, "progress")[-1].values["step"] == 9
    drawn = []
    for epoch in (1, 2, 3):
        plan = job.feed.plan(epoch)
        assert sorted(len(rows) for rows in plan) == [6, 7, 7]
        drawn.append(frozenset(np.concatenate(plan).tolist()))
    assert [len(rows) for rows in drawn] == [20] * 3
    assert len(set(drawn)) == 3


def words(job: Job) -> list[int]:
    """Tokens of each caption of a batch, start and end of text among them."""
    rows = job.feed.plan(1)[0]
    return (job.feed.load(1, 0, rows).texts != 0).sum(1).tolist()


@pytest.mark.parametrize("change", [{"word_dropout": 0.5}, {"caption_mixing": 1.0}], ids=lambda change: next(iter(change)))
def test_captions_are_said_in_other_words(pairs: DatasetReport, tiny_vit: Path, change: dict[str, object]) -> None:
    folders = [train("plain", tiny_vit), train("changed", tiny_vit, **change)]

    plain, other = (words(job_of(folder)) for folder in folders)
    assert set(plain) <= {6, 7}  # start, "a red circle on white" or "red circle, white background", end
    if "word_dropout" in change:
        assert sum(other) < 0.8 * sum(plain)
    else:
        assert min(other) > max(plain)
    assert losses(folders[0]) != losses(folders[1])


@pytest.mark.parametrize(("decay", "averages"), [(0, 0), (0.9, 3)])
def test_the_average_is_kept_if_asked_for(pairs: DatasetReport, tiny_vit: Path, decay: float, averages: int) -> None:
    folder = train("average", tiny_vit, ema_decay=decay, epochs=3)

    assert len(of_kind(folder, "average")) == averages
    assert ("average" in torch.load(folder.checkpoints / "last.pt", weights_only=True)) == bool(averages)


@pytest.mark.parametrize(
    ("scheduler", "first", "final"),
    [
        # 6 steps, of which 6 / 5 = 1 is warm-up; of the last one 4 / 5 of the way are done
        ("cosine", 1.0, (1 + np.cos(0.8 * np.pi)) / 2),
        ("linear", 1.0, 0.2),
        ("constant", 1.0, 1.0),
        ("constant_with_warmup", 1.0, 1.0),
    ],
)
def test_schedulers(pairs: DatasetReport, tiny_vit: Path, scheduler: str, first: float, final: float) -> None:
    folder = train("scheduled", tiny_vit, scheduler=scheduler)

    events = of_kind(folder, "progress")
    assert [event.values["step"] for event in (events[0], events[-1])] == [1, 6]
    rates = [event.values["learning_rate"] / 3e-4 for event in (events[0], events[-1])]
    assert rates == pytest.approx([first, final])


def test_a_warm_up_of_so_many_steps_is_trained_as_asked_for(pairs: DatasetReport, tiny_vit: Path) -> None:
    folder = train("warm", tiny_vit, scheduler_options={"num_warmup_steps": 3})

    assert folder.load().training.recipe["warmup_steps"] == 3
    assert "warmup_ratio" not in folder.load().settings


def test_the_temperature_learns_fully_slowly_or_not_at_all(pairs: DatasetReport, tiny_vit: Path) -> None:
    moved = {}
    for how in ("learned", "slow", "frozen"):
        folder = train(how, tiny_vit, logit_scale=how)
        before = load_file(folder.checkpoints / "start.safetensors")["logit_scale"]
        moved[how] = abs((last(folder)["logit_scale"] - before).item())

    assert moved["learned"] > 5 * moved["slow"] > 0
    assert moved["frozen"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler's own parts
@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-4), ("bf16", 0.03)])
def test_compiled_towers_learn_the_same(pairs: DatasetReport, tiny_vit: Path, precision: str, off: float) -> None:
    one_batch = {"batch_size": 35, "epochs": 3, "precision": precision}  # every new shape is compiled anew
    plain = train("plain", tiny_vit, **one_batch)
    compiled = train("compiled", tiny_vit, compile=True, **one_batch)

    assert losses(compiled) == pytest.approx(losses(plain), abs=off)


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.picks and name != "MultipleLosses"])
def test_a_loss_of_metric_learning_trains_both_towers(pairs: DatasetReport, tiny_vit: Path, name: str) -> None:
    options = {"loss": "TripletMarginLoss"} if name == "CrossBatchMemory" else {}
    folder = train(name, tiny_vit, loss=name, loss_options=options, miner="BatchEasyHardMiner", precision="fp32")

    moved = {place.tower for name, place in locate(load_clip(str(tiny_vit)).model).items() if name in changed(folder)}

    assert {"image", "text"} <= moved
    assert "logit_scale" not in changed(folder)
    assert np.isfinite(losses(folder)).all()


def test_what_a_memory_keeps_is_of_the_steps_that_were_taken_and_counts_in_the_estimate(
    pairs: DatasetReport, tiny_vit: Path
) -> None:
    remembering = {"loss": "CrossBatchMemory", "loss_options": {"loss": "SupConLoss", "memory_size": 100_000}}
    folder = train("remembering", tiny_vit, **remembering, precision="fp32")
    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)["loss"]
    plain = train("plain", tiny_vit, loss="SupConLoss", precision="fp32")
    took = [
        next(event.values["memory_bytes"] for event in of_kind(each, "check") if "memory_bytes" in event.values)
        for each in (folder, plain)
    ]

    assert state["images_count"] == state["texts_count"] == 2 * 35  # nothing of what was tried for the estimate
    assert took[0] - took[1] > state["images_kept"].nbytes * 2


def test_a_loss_that_no_machine_has_room_for_is_refused_before_anything_is_loaded(
    pairs: DatasetReport, tiny_vit: Path
) -> None:
    options = {"loss": "NTXentLoss", "memory_size": 1_000_000}

    with pytest.raises(SettingsError, match=r"items and 16 captions of a batch with each other and the 1,000,000 that are"):
        start("cubed", tiny_vit, loss="CrossBatchMemory", loss_options=options, miner="TripletMarginMiner")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": "0.1"}, r"loss_options\.margin = '0\.1': give a number"),
        ({"reducer": "PerAnchorReducer"}, "a trial on 8 items and 8 captions says: NotImplementedError"),
    ],
)
def test_options_that_no_loss_can_be_computed_with_are_refused_before_anything_is_loaded(
    pairs: DatasetReport, tiny_vit: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        start("untried", tiny_vit, loss="TripletMarginLoss", loss_options=options)


def test_a_metric_losses_batch_may_come_in_pieces(pairs: DatasetReport, tiny_vit: Path) -> None:
    loss = {"loss": "TripletMarginLoss", "miner": "TripletMarginMiner", "multi_positive": True, "precision": "fp32"}

    whole, pieces = (last(train(f"in-{size}", tiny_vit, **loss, micro_batch_size=size)) for size in (12, 5))

    for name, value in whole.items():
        torch.testing.assert_close(value, pieces[name], rtol=1e-3, atol=1e-5)


def test_a_losses_own_state_goes_on_with_the_run(pairs: DatasetReport, tiny_vit: Path) -> None:
    folder = train("histogram", tiny_vit, loss="DynamicSoftMarginLoss", precision="fp32")

    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)["loss"]

    assert state["loss.hist_"].sum() == pytest.approx(1, abs=1e-4)


def test_the_temperature_of_a_loss_is_the_models_own(pairs: DatasetReport, tiny_vit: Path) -> None:
    own = 1 / load_clip(str(tiny_vit)).model.logit_scale.exp().item()

    chosen, given = (
        job_of(start(f"at-{number}", tiny_vit, loss="SupConLoss", loss_options=options)).recipe.loss_options
        for number, options in enumerate(({}, {"temperature": 0.5}))
    )

    assert chosen["temperature"] == pytest.approx(own, rel=1e-3)
    assert given == {"temperature": 0.5}


@pytest.fixture
def coloured(attune_home: Path, push: Callable[..., DatasetReport]) -> DatasetReport:
    """40 pictures whose colour is their label, pushed as `shapes`."""
    return push("shapes", labelled_examples())


@pytest.mark.parametrize(("name", "sampler"), [("ArcFaceLoss", "random"), ("ProxyNCALoss", "class"), ("FastAPLoss", "auto")])
def test_a_loss_over_classes_trains_both_towers_and_its_own_weights(
    coloured: DatasetReport, tiny_vit: Path, name: str, sampler: str
) -> None:
    folder = train(name, tiny_vit, loss=name, sampler=sampler, precision="fp32")

    moved = {place.tower for name, place in locate(load_clip(str(tiny_vit)).model).items() if name in changed(folder)}

    assert {"image", "text"} <= moved
    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)
    own = set(state["loss"])
    assert bool(own) == (name != "FastAPLoss")
    assert ("loss_optimizer" in state) == bool(own)
    assert load_file(folder.chosen_weights).keys() == load_file(folder.start_weights).keys()  # nothing of the loss's


def test_classes_meet_where_the_loss_needs_it(coloured: DatasetReport, tiny_vit: Path) -> None:
    job = job_of(start("meeting", tiny_vit, loss="FastAPLoss", num_items_per_class=3))

    plan = job.feed.plan(1)

    assert len(plan) == job.recipe.steps_per_epoch
    assert sorted(row for batch in plan for row in batch) == list(range(len(job.parts.train)))
    assert all(len({job.parts.train.labels[row] for row in batch}) < len(batch) for batch in plan)


def test_a_loss_over_classes_goes_on_as_if_it_had_not_stopped(coloured: DatasetReport, tiny_vit: Path) -> None:
    settings = {"loss": "ArcFaceLoss", "precision": "fp32", "epochs": 2}
    unbroken = train("unbroken", tiny_vit, **settings)
    folder = start("broken", tiny_vit, **{"learning_rate": 3e-4, "ema_decay": 0, **settings})
    job = prepare(folder, check_settings(folder.load().settings), stop=lambda: job.position.step >= 2)

    with pytest.raises(TrainingStopped):
        fit(job)
    run_stage("train", "broken")

    assert all(torch.equal(value, last(folder)[name]) for name, value in last(unbroken).items())


@pytest.mark.parametrize("asked", [{"loss": "ArcFaceLoss"}, {"sampler": "class"}])
def test_pictures_without_labels_have_no_classes(pairs: DatasetReport, tiny_vit: Path, asked: dict[str, object]) -> None:
    with pytest.raises(DataError, match="takes a label for every picture, and 35 of the 35 training pictures of 'shapes'"):
        start("unlabelled", tiny_vit, **asked)
