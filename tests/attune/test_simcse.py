"""Learning from single texts without labels: each is embedded twice, and finds its other embedding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.config import check_settings
from attune.errors import DataError, SettingsError
from attune.evaluation.measure import embed_items
from attune.losses.batch import EmbeddedBatch
from attune.losses.make import make_loss
from attune.models.clip import load_clip
from attune.models.trainable import train_mode
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun
from attune.stages import run_stage
from attune.training.epoch import compute_gradients
from attune.training.job import Job, prepare
from attune.validation import validate
from tests.attune.sentences import save_sentence
from tests.attune.singles import sentences
from tests.attune.texts import graded, questions
from tests.attune.trained import QUICK, of_kind

Push = Callable[..., DatasetReport]

PLAIN = {name: value for name, value in QUICK.items() if name not in ("eval_split", "val_split", "augmentation")}
TEXTS = {**PLAIN, "train_data": "texts", "val_data": "chosen-by", "eval_data": "wishes", "epochs": 2}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory, push: Push) -> Path:
    folder = tmp_path_factory.mktemp("simcse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(folder))
        everything = sentences(100)
        push("texts", [one.model_copy(update={"label": ""}) for one in everything[:50]])
        push("wishes", everything[50:75])
        push("chosen-by", everything[75:])
        push("half", [*everything[:10], *[one.model_copy(update={"label": ""}) for one in everything[10:20]]])
        push("questions", questions(40))
        learnt = {one.text for one in everything[:50]}
        scored = [one for one in graded() if one.text not in learnt]
        push("judged", scored[:20])
        push("judged-too", scored[20:])
    return folder


@pytest.fixture
def home(_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTUNE_HOME", str(_home))
    return _home


def run_of(name: str, model: Path | str, **changes: object) -> FinetuningRun:
    return FinetuningRun(name=name, settings={**TEXTS, "model": str(model), **changes})


def begun(name: str, model: Path | str, **changes: object) -> RunFolder:
    """A validated run."""
    folder = RunFolder.create(run_of(name, model, **changes))
    run_stage("validate", name)
    return folder


def job_of(name: str, bert: Path) -> Job:
    folder = begun(name, bert)
    return prepare(folder, check_settings(folder.load().settings))


def test_a_run_learns_from_texts_alone_and_is_judged_by_others(home: Path, bert: Path) -> None:
    folder = begun("simcse", bert)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "simcse")
    run = folder.load()

    assert (run.training.recipe["loss"], run.training.recipe["sampler"]) == ("SimCSELoss", "random")
    assert run.evaluation.counted == "25 texts"
    losses = [event.values["loss"] for event in of_kind(folder, "progress")]
    assert losses[-1] < losses[0]


def test_each_text_is_there_twice_and_drops_out_other_numbers(home: Path, bert: Path) -> None:
    job = job_of("twice", bert)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])
    train_mode(job.clip.model)
    torch.manual_seed(0)
    one, other = job.towers.encode_images(batch.images), job.towers.encode_texts(batch.texts)

    assert torch.equal(batch.images, batch.texts)
    assert (batch.positives, batch.classes, batch.image_counts) == (None, None, batch.text_counts)
    assert not torch.allclose(one, other, atol=1e-3)
    assert (one * other).sum(1).mean() > (one @ other.T).mean()


def test_the_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    similar = one @ other.T / 0.05
    by_hand = -torch.stack([similar[row].log_softmax(0)[row] for row in range(5)]).mean()

    found = make_loss("SimCSELoss", {})(EmbeddedBatch(one, other, torch.tensor(100.0)))

    assert found == pytest.approx(by_hand.item(), rel=1e-5)
    warmer = make_loss("SimCSELoss", {"temperature": 1.0})(EmbeddedBatch(one, other, torch.tensor(100.0)))
    assert warmer != pytest.approx(found.item())


def test_pieces_of_a_batch_give_the_gradients_of_the_whole(home: Path, bert: Path) -> None:
    found = []
    for name, size in (("whole", None), ("pieces", 16)):
        job = job_of(name, bert)
        batch = job.feed.load(1, 0, job.feed.plan(1)[0])
        job.position.micro_batch_size = size
        job.clip.model.eval()  # without chance: it is drawn piece by piece
        compute_gradients(job, batch)
        found.append([weight.grad for weight in job.clip.model.parameters() if weight.grad is not None])

    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_training_changes_what_is_near_to_what(home: Path, bert: Path) -> None:
    """Random weights embed all texts nearly alike; the loss spreads them (Wang & Isola 2020, arXiv:2005.10242)."""
    folder = begun("spread", bert, epochs=8)
    run_stage("train", "spread")
    pairs = prepare(folder, check_settings(folder.load().settings)).parts.test
    clip = load_clip(str(bert))
    means = []
    for weights in (folder.start_weights, folder.chosen_weights):
        clip.load_weights(weights)
        embedded = embed_items(clip, pairs, None)
        means.append(float(np.mean(embedded @ embedded.T)))

    assert means[1] < means[0] - 0.05


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"train_data": "half"}, DataError, "10 of the 20 training texts of 'half' have none"),
        (
            {"train_data": "questions", "loss": "SimCSE", "eval_data": None, "val_data": None},
            SettingsError,
            "single texts",
        ),
        ({"loss": "MultipleLosses", "loss_options": {"losses": ["SimCSELoss", "SupConLoss"]}}, SettingsError, "no part of"),
        ({"loss": "MultipleLosses", "loss_options": {"losses": ["SimCSELoss"]}}, SettingsError, "no part of"),
        ({"word_dropout": 0.1}, SettingsError, r"word_dropout = 0\.1 changes captions"),
        ({"loss": "CLIPLoss"}, SettingsError, r"CLIPLoss.*single texts\. Use one of: SimCSELoss$"),
        (
            {"loss_options": {"temperature": 0}, "loss": "SimCSELoss"},
            SettingsError,
            r"temperature = 0: give a number from 1e-06",
        ),
        ({"val_data": None}, DataError, "have no labels.*give val_data and eval_data that have labels, captions or scores"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    home: Path, bert: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        validate(run_of("refused", bert, **changes))


def test_a_model_that_drops_out_nothing_is_refused(home: Path, tiny_vit: Path) -> None:
    with pytest.raises(SettingsError, match=r"drops out nothing. Choose a text encoder"):
        validate(run_of("refused", f"{tiny_vit}#scratch"))


def test_labels_are_not_looked_at_if_the_loss_takes_none(home: Path, bert: Path) -> None:
    judged = {"eval_data": "judged", "val_data": "judged-too"}

    complete = validate(run_of("half", bert, train_data="half", loss="SimCSE", **judged))

    assert complete["settings"]["loss"] == "SimCSELoss"
