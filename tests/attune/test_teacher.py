"""The running average as a teacher, in real runs."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.models.clip import load_clip
from attune.models.text import encode_text
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from attune.training.job import Job
from attune.training.position import Position
from attune.training.rewind import restore
from attune.training.teacher import teach
from tests.attune.trained import job_of, start, validations


@pytest.fixture(autouse=True)
def pairs(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    """48 pictures with two captions each, 35 of them to train on."""
    return push("shapes", make_examples(48))


def train(name: str, model: Path, **changes: object) -> RunFolder:
    folder = start(name, model, **{"epochs": 2, "ema_decay": 0.9, "self_distillation": 0.4, **changes})
    run_stage("train", name)
    return folder


def trained(folder: RunFolder) -> Job:
    """The job where its training ended."""
    job = job_of(folder)
    assert restore(job)
    return job


@pytest.mark.parametrize("micro_batch_size", [None, 5])
@pytest.mark.parametrize("captions", ["one", "all"])
def test_it_finds_what_the_averaged_weights_find_in_what_the_weights_will_see(
    tiny_model: Path, captions: str, micro_batch_size: int | None
) -> None:
    changes = {"augmentation": "strong", "multi_positive": captions == "all", "learning_rate": 1e-4}
    job = trained(train("taught", tiny_model, **changes))
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])
    job.clip.model.train()
    own = {name: value.clone() for name, value in job.clip.model.state_dict().items()}

    taught = teach(job, batch, micro_batch_size)

    assert taught is not None
    assert taught.share == pytest.approx(0.4)
    alone = load_clip(str(tiny_model))
    with job.average.applied(job.clip.model):
        alone.model.load_state_dict(job.clip.model.state_dict())
    assert any(not torch.equal(value, own[name]) for name, value in alone.model.state_dict().items())
    images = alone.encode_images(batch.images.numpy())
    alone.model.eval()
    with torch.inference_mode():
        texts = encode_text(alone.model, batch.texts).numpy()
    np.testing.assert_allclose(taught.logits, alone.model.logit_scale.exp().item() * images @ texts.T, atol=1e-4)
    assert taught.logits.shape == (len(batch), len(batch) * (2 if captions == "all" else 1))
    assert not taught.logits.requires_grad
    assert job.clip.model.training
    assert all(torch.equal(value, own[name]) for name, value in job.clip.model.state_dict().items())


def test_piece_by_piece_it_finds_the_same(tiny_vit: Path) -> None:
    job = trained(train("pieces", tiny_vit))
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    torch.testing.assert_close(teach(job, batch, 5).logits, teach(job, batch).logits, atol=1e-5, rtol=0)


def test_what_is_taught_changes_what_is_learnt_and_pieces_change_nothing(tiny_vit: Path) -> None:
    runs = {"whole": {}, "pieces": {"micro_batch_size": 5}, "alone": {"self_distillation": 0}}
    losses = {name: [loss for _, loss, _ in validations(train(name, tiny_vit, **changes))] for name, changes in runs.items()}

    assert losses["pieces"] == pytest.approx(losses["whole"], abs=1e-4)
    assert abs(losses["alone"][-1] - losses["whole"][-1]) > 1e-3


def test_its_share_grows_over_the_run(tiny_vit: Path) -> None:
    job = job_of(start("untrained", tiny_vit, epochs=2, ema_decay=0.9, self_distillation=0.4))
    batch, taught = job.feed.load(1, 0, job.feed.plan(1)[0]), []
    for epoch, step in product((1, 2), range(3)):
        job.position = Position(epoch, step)
        taught.append(teach(job, batch))

    assert taught[0] is None
    assert [found.share for found in taught[1:]] == pytest.approx([0.4 * step / 6 for step in range(1, 6)])


def test_nothing_is_taught_that_was_not_asked_for(tiny_vit: Path) -> None:
    job = trained(train("alone", tiny_vit, self_distillation=0))

    assert teach(job, job.feed.load(1, 0, job.feed.plan(1)[0])) is None
