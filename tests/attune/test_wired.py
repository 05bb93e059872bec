"""What a run's parts do, seen in a run: a part that is right and never called helps nobody."""

import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attune.errors import TrainingError, TrainingStopped
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from attune.training.epoch import compute_gradients, train_epoch
from attune.training.feed import Batch
from attune.training.fit import fit
from attune.training.job import Job
from attune.training.processes import OUTCOME
from attune.training.progress import Progress
from attune.training.towers import Towers
from attune.training.train import finish
from tests.attune.trained import job_of, of_kind, start, validations

WORK = {"data", "forward", "backward", "optimizer", "validation"}


@pytest.fixture(autouse=True)
def shapes(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    """48 pictures with a caption each: a long one, and every fourth the same short one."""
    examples = make_examples(48, captions=1)
    for example in examples[::4]:
        example.captions = ["a shape"]
    return push("shapes", examples)


def ready(name: str, model: Path, **changes: object) -> Job:
    return job_of(start(name, model, check_pairs=False, **changes))


def seen(module: torch.nn.Module, work: Callable[[], object]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What goes into a module and comes out of it meanwhile."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = module.register_forward_hook(lambda _, given, made: found.append((given[0], made)))
    work()
    handle.remove()
    return found


def test_same_captions_are_no_negatives_and_none_is_longer_than_the_longest(tiny_vit: Path) -> None:
    job = ready("fed", tiny_vit)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    same = [[a != b and job.parts.train.captions[a] == job.parts.train.captions[b] for b in batch.rows] for a in batch.rows]
    assert any(map(any, same))
    assert batch.ignored is not None
    assert batch.ignored.tolist() == same
    longest = max(
        len(job.clip.tokenizer([text])[0].nonzero()) for row in batch.rows for text in job.parts.train.captions[row]
    )
    assert batch.texts.shape[1] == longest < job.clip.model.context_length


def test_short_captions_are_encoded_apart_from_long_ones(
    tiny_vit: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> None:
    examples = make_examples(96, captions=1)
    for number, example in enumerate(examples[::2]):
        example.captions = [f"shape {number}"]
    push("half", examples)
    job = ready("by-length", tiny_vit, train_data="half", batch_size=96)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    passes = seen(job.clip.model.token_embedding, lambda: job.towers.encode_texts(batch.texts))

    assert len({given.shape[1] for given, _ in passes}) > 1
    assert sum(given.numel() for given, _ in passes) < batch.texts.numel()


def test_the_loader_has_one_thread_and_takes_none_from_the_steps(tiny_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ready("loaded", tiny_vit)
    load, of_loader = job.feed.load, []

    def loaded(*arguments: Any) -> Batch:
        of_loader.append(torch.get_num_threads())
        return load(*arguments)

    monkeypatch.setattr(job.feed, "load", loaded)
    torch.set_num_threads(2)
    try:
        batches = len(list(job.feed.batches(1, job.feed.plan(1))))
        of_steps = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)

    assert of_loader == [1] * batches
    assert of_steps == 2


def test_gradients_are_not_kept_between_epochs(tiny_vit: Path) -> None:
    job = ready("dropped", tiny_vit)

    train_epoch(job, job.feed.plan(1))

    assert job.position.step > 0
    assert all(weight.grad is None for weight in job.clip.model.parameters())


def test_moments_and_average_make_room_for_the_weights_that_are_tried(
    tiny_vit: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push("others", make_examples(96)[48:])
    job = ready("tried", tiny_vit, ema_decay=0.9, epochs=1, retention_data="others")  # on which the start is tried at least
    fit(job)
    assert job.optimizer.state
    assert job.average is not None
    load, kept = job.clip.model.load_state_dict, []

    def loaded(*arguments: Any) -> object:
        kept.append((len(job.optimizer.state), job.average))
        return load(*arguments)

    monkeypatch.setattr(job.clip.model, "load_state_dict", loaded)
    finish(job)

    assert kept
    assert set(kept) == {(0, None)}
    assert job.checkpoints.optimizer.is_file()


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_towers_compute_in_the_runs_precision(tiny_vit: Path, precision: str, kind: torch.dtype) -> None:
    job = ready("precise", tiny_vit, precision=precision)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    (_, made), *_ = seen(job.clip.model.visual.conv1, lambda: job.towers.encode_images(batch.images))

    assert made.dtype == kind
    assert (type(made.grad_fn).__name__ == "PermuteBackward0") == (precision == "bf16")  # patches as a product
    assert all(weight.dtype == torch.float32 for weight in job.clip.model.parameters())
    assert all(group["fused"] for group in job.optimizer.param_groups)


def test_the_temperature_never_leaves_its_bound(tiny_vit: Path) -> None:
    job = ready("hot", tiny_vit, logit_scale="learned", multi_positive=False)
    with torch.no_grad():
        job.clip.model.logit_scale.fill_(math.log(100))
    plan = job.feed.plan(1)
    # It rises where right answers stand out: here each caption's embedding is its picture's.
    job.towers.encode_texts = lambda _: job.towers.encode_images(job.feed.load(1, 0, plan[0]).images)

    train_epoch(job, plan[:1])

    assert job.position.step == 1
    assert job.clip.model.logit_scale.exp().item() == pytest.approx(100, abs=1e-4)


@pytest.mark.parametrize("captions", ["one", "all"])
def test_the_guards_are_told_of_the_temperature_and_of_what_chance_would_lose(
    tiny_vit: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
    monkeypatch: pytest.MonkeyPatch,
    captions: str,
) -> None:
    push("two-each", make_examples(48))
    job = ready("watched", tiny_vit, train_data="two-each", logit_scale="learned", multi_positive=captions == "all")
    texts = 2 if captions == "all" else 1
    plan, told, scales = job.feed.plan(1), [], []
    after_step = job.guards.after_step

    def listened(*arguments: float) -> str:
        scales.append(job.clip.model.logit_scale.exp().item())
        told.append(arguments[-2:])
        return after_step(*arguments)

    monkeypatch.setattr(job.guards, "after_step", listened)
    train_epoch(job, plan)

    chance = [math.log(len(rows)) + math.log(texts) / 2 for rows in plan]  # the mean of ln(pictures) and ln(captions)
    assert told == [(scale, pytest.approx(loss)) for scale, loss in zip(scales, chance, strict=True)]
    assert len(set(scales)) == len(plan) == 3


def test_time_is_told_by_kind_of_work_and_adds_up(tiny_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a step waits for at its end, as it does for a GPU."""
    job = ready("timed", tiny_vit)
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])
    told = torch.Tensor.item

    def waited_for(tensor: torch.Tensor) -> float:
        time.sleep(0.5)
        return told(tensor)

    monkeypatch.setattr(torch.Tensor, "item", waited_for)
    began = time.monotonic()
    compute_gradients(job, batch)
    assert sum(job.progress.seconds.values()) == pytest.approx(time.monotonic() - began, abs=0.1)


def test_every_kind_of_work_has_its_share(tiny_vit: Path) -> None:
    start("shares", tiny_vit, epochs=2, learning_rate=1e-4)
    shares = run_stage("train", "shares").training.time_shares

    assert shares.keys() == WORK
    assert all(shares[kind] > 0.01 for kind in WORK - {"data"})  # the next batch is loaded meanwhile
    assert sum(shares.values()) < 1


def test_time_goes_on_where_the_process_before_left_it() -> None:
    first, second = (Progress(lambda *_, **__: None, torch.device("cpu"), 10, 1) for _ in range(2))
    first.seconds["forward"] += 3.0
    first.step(1, 1, 0.5, 1e-4, pairs=12)
    state = {**first.state_dict(), "total": 8.0}

    second.seconds["forward"] += 1.0
    second.load_state_dict(state)

    assert second.pairs_per_second() == pytest.approx(12 / 4)
    assert second.total_seconds() == pytest.approx(8, abs=1)
    assert second.shares()["forward"] == pytest.approx(0.5, abs=0.1)


def short_of_memory(towers: Towers, images: torch.Tensor, most: int = 4, steps: Iterator[int] | None = None) -> torch.Tensor:
    """As if no more pictures at a time fitted, while the model trains, or after so many steps of it."""
    if towers.clip.model.training and len(images) > most and (steps is None or next(steps, None) is None):
        raise torch.OutOfMemoryError("out of memory")
    return encode_images(towers, images)


encode_images = Towers.encode_images


def short_in_one_of_two(folder: Path, monkeypatch: pytest.MonkeyPatch, most: int, steps: int = 0) -> None:
    """The second process of a run that starts now is short of memory, after so many steps."""
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from functools import partialmethod\n"
        "    from attune.training.towers import Towers\n"
        "    from tests.attune.test_wired import short_of_memory\n"
        f"    Towers.encode_images = partialmethod(short_of_memory, most={most}, steps=iter(range({steps})))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[2]}")


def test_a_run_that_memory_is_too_small_for_takes_smaller_pieces(tiny_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start("roomy", tiny_vit, epochs=1)
    roomy = run_stage("train", "roomy").training
    monkeypatch.setattr(Towers, "encode_images", short_of_memory)
    folder = start("narrow", tiny_vit, epochs=1)
    narrow = run_stage("train", "narrow").training

    assert [event.values["pairs"] for event in of_kind(folder, "memory")] == [6, 3]  # 35 pictures are batches of 12 or 11
    assert narrow.final_loss == pytest.approx(roomy.final_loss, abs=1e-4)
    assert narrow.steps == roomy.steps


def test_several_processes_take_smaller_pieces_if_memory_is_too_small_for_one(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_in_one_of_two(tmp_path, monkeypatch, most=4, steps=4)
    roomy, narrow = (start(f"in-{count}", tiny_vit, epochs=3, learning_rate=1e-4, processes=count) for count in (1, 2))
    expected, found = (run_stage("train", folder.load().name).training for folder in (roomy, narrow))

    (said,) = of_kind(narrow, "memory")  # 35 pictures are batches of 12 or 11: six or five for each
    assert re.fullmatch(
        r"Process 1 of 2 ran out of memory with [56] pictures at a time: [23] at a time from .*", said.message
    )
    assert found.recipe["micro_batch_size"] == said.values["pairs"]
    assert expected.recipe["micro_batch_size"] is None
    assert (found.steps, found.epochs) == (expected.steps, expected.epochs)
    assert found.final_loss == pytest.approx(expected.final_loss, abs=1e-4)
    for kind in ("validation", "average"):
        assert [epoch for epoch, *_ in validations(narrow, kind)] == [epoch for epoch, *_ in validations(roomy, kind)]
    assert not (narrow.checkpoints / "outcome.json").exists()


def test_a_stop_holds_though_the_processes_were_to_start_again_in_smaller_pieces(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_in_one_of_two(tmp_path, monkeypatch, most=4)
    folder = start("stopped", tiny_vit, epochs=1, processes=2)
    told = folder.checkpoints / OUTCOME

    def ask() -> None:
        deadline = time.monotonic() + 120
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)  # the processes are ending

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(TrainingStopped, match="asked to stop"):
        run_stage("train", "stopped")
    asking.join()

    assert not of_kind(folder, "memory")
    assert folder.load().state == "TRAINING"


def test_several_processes_give_up_if_one_pair_at_a_time_does_not_fit(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_in_one_of_two(tmp_path, monkeypatch, most=0)
    start("no-room", tiny_vit, epochs=1, processes=2, micro_batch_size=2)

    with pytest.raises(TrainingError, match=r"Process 1 of 2 ran out of memory with 1 pictures at a time\. Set processes"):
        run_stage("train", "no-room")
