"""Training pictures that are mirrored: which, how many, and the same ones whenever a batch is drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from attune.config import check_settings
from attune.schemas import DatasetReport, TrainingExample
from attune.training.job import Job, prepare
from tests.attune.trained import start

FLIPPED = {"horizontal_flip": 0.5, "batch_size": 16, "epochs": 1, "learning_rate": 1e-3}


def job_of(name: str, model: Path, **changes: object) -> Job:
    folder = start(name, model, **{**FLIPPED, **changes})
    return prepare(folder, check_settings(folder.load().settings))


def test_half_of_the_pictures_are_mirrored_and_the_same_ones_in_every_process(model: Path) -> None:
    job = job_of("flipped", model)
    feed, straight = job.feed, job_of("straight", model, horizontal_flip=0).feed
    rows = feed.plan(1)[0]
    batch, plain = feed.load(1, 0, rows).images, straight.load(1, 0, rows).images

    turned = [torch.equal(one, other.flip(-1)) for one, other in zip(batch, plain, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(batch, plain, strict=True)]

    assert all(one or other for one, other in zip(turned, same, strict=True))
    assert any(not one for one in same)
    assert any(same)
    assert torch.equal(batch, feed.load(1, 0, rows).images)
    halves = []
    for rank in range(2):
        feed.world = replace(job.world, rank=rank, size=2)
        halves.append(feed.load(1, 0, rows).images)
    assert torch.equal(torch.cat(halves), batch)


def test_a_picture_whose_caption_speaks_of_sides_stays_as_it_is(
    model: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> None:
    examples = make_examples(60)
    for example in examples:
        example.captions = [f"{caption}, seen from the left" for caption in example.captions]
    push("sided", examples)
    changes = {"train_data": "sided", "check_pairs": False}
    feed = job_of("sided", model, horizontal_flip=1, **changes).feed
    straight = job_of("sided-straight", model, horizontal_flip=0, **changes).feed

    rows = feed.plan(1)[0]
    assert torch.equal(feed.load(1, 0, rows).images, straight.load(1, 0, rows).images)


def test_the_run_says_how_new_its_data_was(model: Path) -> None:
    job = job_of("said", model)

    events = [event.message for event in job.folder.events()]
    assert any(message.startswith("novelty of the data to the model 0") for message in events)
    assert job.recipe.record()["novelty"] == job.recipe.novelty < 0.5
