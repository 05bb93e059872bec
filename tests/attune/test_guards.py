import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attune.errors import TrainingError
from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.models.clip import load_clip
from attune.training.guards import (
    Guards,
    Health,
    ScaleGuard,
    StepGuard,
    StuckGuard,
    chance_loss,
    check_collapse,
    embedding_health,
    first_check,
    is_chance,
)
from attune.training.memory import free_bytes, is_out_of_memory, with_enough_memory


def silent(*_: object, **__: object) -> None:
    pass


def descend(guard: StepGuard, learning_rate: float, steps: int = 300) -> tuple[float, list[int]]:
    """Gradient descent on f(w) = 2 w^2 from w = 1 in float32, as the training loop does it; where it rolled back."""
    weight, rolled_back = torch.ones(1, requires_grad=True), []
    for step in range(1, steps + 1):
        rate = learning_rate * guard.rate_factor
        weight.grad = None
        loss = 2 * (weight**2).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([weight], 1e30).item()
        action = guard.check(step, loss.item(), norm, rate, [f"row-{step}"]).action
        with torch.no_grad():
            if action == "step":
                weight -= rate * weight.grad
            if action == "roll_back":
                weight.fill_(1)
                rolled_back.append(step)
    return weight.item(), rolled_back


def test_an_overflow_is_rolled_back_until_the_learning_rate_is_low_enough() -> None:
    # Each step multiplies w by 1 - 4 rate: -5 at a rate of 1.5 and -2 at 0.75 overflow, -0.5 at 0.375 converges.
    guard = StepGuard()

    weight, rolled_back = descend(guard, 1.5)

    assert abs(weight) < 1e-6
    assert len(rolled_back) == 2
    # 2 x 5^(2n) exceeds 3.4e38 first for n = 28, so from the 29th step on three losses are infinite.
    assert rolled_back[0] == 31
    assert guard.rate_factor == 0.25
    assert guard.skipped == 6
    assert guard.taken == 294


def test_a_loss_that_always_overflows_ends_the_run_with_what_to_do() -> None:
    guard = StepGuard()
    with pytest.raises(TrainingError) as raised:
        descend(guard, 1e6)
    message = str(raised.value)
    # 1e6 / 8 after three roll backs; the batch's rows are named, and what to set.
    assert "inf" in message
    assert "125000" in message
    assert "after 3 returns" in message
    assert "at step" in message
    assert "row-" in message
    assert "learning_rate" in message
    assert "fp32" in message


def test_single_bad_steps_are_skipped_and_only_three_in_a_row_roll_back() -> None:
    guard = StepGuard()
    values = [1.0, math.nan, math.nan, 1.0, math.nan, math.nan, math.nan, 1.0]
    actions = [guard.check(step, value, 1.0, 0.1, []).action for step, value in enumerate(values, start=1)]
    assert actions == ["step", "skip", "skip", "step", "skip", "skip", "roll_back", "step"]


def test_a_gradient_that_is_no_number_is_not_taken_even_if_the_loss_is() -> None:
    weight = torch.zeros(1, requires_grad=True)
    weight.sqrt().sum().backward()  # finite loss 0, gradient 1 / (2 sqrt 0)
    norm = torch.nn.utils.clip_grad_norm_([weight], 1.0).item()

    decision = StepGuard().check(7, 0.0, norm, 0.1, [])

    assert decision.action == "skip"
    assert "step 7" in decision.note
    assert "inf" in decision.note


def test_a_spike_is_told_and_taken() -> None:
    guard = StepGuard()
    for step in range(1, 21):
        assert guard.check(step, 1.0, 2.0 + step % 2, 0.1, []).note == ""
    # Of ten 2s and ten 3s the median is 2.5, so that 20 times it is 50.
    assert guard.check(21, 1.0, 49.9, 0.1, []) == ("step", "")
    spike = guard.check(22, 1.0, 61.0, 0.1, [])  # the median is 3 now, the bound 60
    assert spike.action == "step"
    assert "61" in spike.note


def test_few_norms_make_no_spike() -> None:
    guard = StepGuard()
    assert guard.check(1, 1.0, 0.001, 0.1, []).note == ""
    assert guard.check(2, 1.0, 1000.0, 0.1, []).note == ""


def test_a_run_in_which_no_step_was_taken_is_no_success() -> None:
    guard = StepGuard()
    guard.check_end()
    guard.check(1, math.nan, math.nan, 0.1, [])
    with pytest.raises(TrainingError, match="No step was taken: in all 1 "):
        guard.check_end()
    guard.check(2, 1.0, 1.0, 0.1, [])
    guard.check_end()


def test_only_the_first_rows_of_a_large_batch_are_shown() -> None:
    guard = StepGuard(limit=1, max_roll_backs=0)
    with pytest.raises(TrainingError, match="rows: 0, 1, 2, 3, 4, 5, 6, 7, and more$"):
        guard.check(1, math.nan, 1.0, 0.1, np.arange(256))


@pytest.mark.parametrize("at", [3, 30, 31, 40])
def test_guards_that_were_saved_and_loaded_decide_the_same(at: int) -> None:
    rng = np.random.default_rng(at)
    losses = np.where(rng.random(60) < 0.3, math.nan, math.log(16) + rng.normal(0, 0.1, 60))
    losses[10:13] = math.nan
    norms = np.where(rng.random(60) < 0.1, 500.0, 1.0)

    def new() -> tuple[Guards, list[str]]:
        lines: list[str] = []
        return Guards(lambda line, **_: lines.append(line), warmup_steps=5, start_scale=100.0), lines

    def go(guards: Guards, steps: range) -> list[str]:
        return [
            guards.after_step(n, float(losses[n]), float(norms[n]), 0.1, [n], 100.0 - n / 2, math.log(16)) for n in steps
        ]

    unbroken, all_lines = new()
    unbroken.after_validation(np.eye(4), np.eye(4))
    actions = go(unbroken, range(60))
    first, lines = new()
    first.after_validation(np.eye(4), np.eye(4))
    before = go(first, range(at))
    second, more_lines = new()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = go(second, range(at, 60))

    assert before + after == actions
    assert lines + more_lines == all_lines
    assert second.state_dict() == unbroken.state_dict()
    assert second.rate_factor == unbroken.rate_factor < 1


# --- collapse


def test_health_of_embeddings_worked_out_by_hand() -> None:
    health = embedding_health(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32))
    assert health.mean_cosine == pytest.approx(2 / 6)
    assert health.effective_rank == pytest.approx(2)
    # Equal pairs are 0 apart, the others 2 squared: (2 x 1 + 4 x exp(-4)) / 6
    assert health.uniformity == pytest.approx(math.log((2 + 4 * math.exp(-4)) / 6))


def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values() -> None:
    # Three rows (1, 0) and one (0, 1): singular values sqrt 3 and 1.
    health = embedding_health(np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32))
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    assert health.effective_rank == pytest.approx(math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p)))


def test_health_equals_a_slow_reference_over_pairs() -> None:
    rows = spread(30, 8, 0.5)
    pairs = [(i, j) for i in range(30) for j in range(i)]
    health = embedding_health(rows)
    assert health.mean_cosine == pytest.approx(np.mean([rows[i] @ rows[j] for i, j in pairs]), rel=1e-5)
    closeness = np.mean([math.exp(-2 * float(((rows[i] - rows[j]) ** 2).sum())) for i, j in pairs])
    assert health.uniformity == pytest.approx(math.log(closeness), rel=1e-4)


def test_many_embeddings_are_judged_by_an_even_choice() -> None:
    rows = spread(5000, 16, 0.5)
    assert embedding_health(rows).mean_cosine == pytest.approx(embedding_health(rows[:2000]).mean_cosine, abs=0.02)


def spread(count: int, dim: int, mean_cosine: float, seed: int = 0) -> np.ndarray:
    """Unit vectors around one direction, with about this mean cosine."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, dim - 1))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    rows = np.hstack([np.full((count, 1), math.sqrt(mean_cosine)), math.sqrt(1 - mean_cosine) * noise])
    return rows.astype(np.float32)


@pytest.fixture(scope="session")
def shape_batch(make_examples: Any) -> tuple[np.ndarray, list[str]]:
    """32 pictures of shapes as `starter` takes them, uint8, and a caption of each."""
    import io

    from PIL import Image

    resize = load_clip("starter").resize
    examples = make_examples(32, captions=1)
    pictures = [np.asarray(resize(Image.open(io.BytesIO(one.image)))).transpose(2, 0, 1) for one in examples]
    return np.stack(pictures), [one.captions[0] for one in examples]


@pytest.mark.parametrize(("learning_rate", "collapses"), [(1.0, True), (1e-5, False)])
def test_a_model_collapses_under_an_enormous_rate_and_not_under_a_sound_one(
    shape_batch: tuple[np.ndarray, list[str]], learning_rate: float, collapses: bool
) -> None:
    pixels, captions = shape_batch
    clip = load_clip("starter")
    guards = Guards(silent, warmup_steps=0, start_scale=clip.model.logit_scale.exp().item())

    def validate(where: str) -> None:
        guards.after_validation(clip.encode_images(pixels), clip.encode_texts(captions), where)

    validate("before")
    optimizer = torch.optim.AdamW(clip.model.parameters(), lr=learning_rate, betas=(0.9, 0.98), eps=1e-6)
    clip.model.train()
    inputs, tokens = clip.normalise(torch.from_numpy(pixels)), clip.tokenizer(captions)
    for _ in range(3):
        optimizer.zero_grad()
        images, texts = clip.model.encode_image(inputs, normalize=True), clip.model.encode_text(tokens, normalize=True)
        clip_loss(EmbeddedBatch(images, texts, clip.model.logit_scale.exp())).backward()
        optimizer.step()

    if not collapses:
        validate("after epoch 1")
        return
    with pytest.raises(TrainingError, match=r"after epoch 1.*Set a lower learning_rate"):
        validate("after epoch 1")


def test_an_effective_rank_that_falls_ends_the_run_though_the_mean_cosine_is_low() -> None:
    start = embedding_health(spread(64, 32, 0.1))
    line = np.tile(np.array([[1, 0], [-1, 0]], dtype=np.float32), (32, 1))  # two clusters, opposite each other
    now = embedding_health(line)
    assert now.mean_cosine < 0
    with pytest.raises(TrainingError, match=r"effective rank is 1\.0, was \d+"):
        check_collapse(now, start)


def test_embeddings_that_are_no_number_end_the_run() -> None:
    broken = spread(8, 4, 0.5)
    broken[3, 1] = np.nan
    with pytest.raises(TrainingError, match="captions after epoch 3 hold values that are no number"):
        check_collapse(embedding_health(broken), Health(0.5, 4.0, -2.0), "captions", "after epoch 3")


@pytest.mark.parametrize(
    ("start", "now"),
    [
        pytest.param(spread(200, 64, 0.4), spread(200, 64, 0.6), id="healthy CLIP"),
        pytest.param(spread(200, 64, 0.92), spread(200, 64, 0.96), id="a narrow subject that starts near the bound"),
        pytest.param(spread(200, 64, 0.99), spread(200, 64, 0.999), id="random weights"),
        pytest.param(spread(3, 8, 0.3), spread(3, 8, 0.6, seed=1), id="three pictures"),
        pytest.param(spread(2, 8, 0.0), spread(2, 8, 0.9, seed=1), id="two pictures"),
        pytest.param(spread(1, 8, 0.3), spread(1, 8, 0.6), id="one picture"),
        pytest.param(np.eye(64)[np.arange(200) % 64], np.eye(64)[np.arange(200) % 24], id="a third of the dimensions"),
    ],
)
def test_what_is_no_collapse(start: np.ndarray, now: np.ndarray) -> None:
    check_collapse(embedding_health(now), embedding_health(start))


def test_the_gap_between_pictures_and_texts_plays_no_part() -> None:
    # Both kinds are spread well, in opposite cones: a cosine over both would be strange, over each it is not.
    images, texts = spread(100, 32, 0.5), -spread(100, 32, 0.5, seed=1)
    guards = Guards(silent, warmup_steps=0, start_scale=100.0)
    for _ in range(2):
        guards.after_validation(images, texts)


def test_random_weights_may_be_all_alike_on_their_way() -> None:
    guards = Guards(silent, warmup_steps=0, start_scale=14.0, scratch=True)
    guards.after_validation(spread(100, 32, 0.5), spread(100, 32, 0.5))
    guards.after_validation(spread(100, 32, 0.999), spread(100, 32, 0.5))


# --- chance


def learn(
    guard: StuckGuard, scale_guard: ScaleGuard | None = None, shuffle: bool = False, steps: int = 200, late: int = 0
) -> None:
    """Two linear towers on 64 pairs of random features, trained for real; `late` steps come before the first one."""
    generator = torch.Generator().manual_seed(0)
    pictures, captions = (torch.randn(64, 32, generator=generator) for _ in "it")
    towers = [torch.nn.Parameter(torch.randn(32, 16, generator=generator) * 0.1) for _ in "it"]
    log_scale = torch.nn.Parameter(torch.tensor(math.log(20.0)))
    optimizer = torch.optim.Adam([*towers, log_scale], lr=0.03)
    for step in range(1, steps + 1):
        order = torch.randperm(64, generator=generator) if shuffle else torch.arange(64)
        images, texts = F.normalize(pictures @ towers[0], dim=-1), F.normalize(captions[order] @ towers[1], dim=-1)
        loss = clip_loss(EmbeddedBatch(images, texts, log_scale.exp() if step > late else log_scale.exp() * 0))
        optimizer.zero_grad()
        loss.backward()
        if step > late:
            optimizer.step()
        guard.check(step, loss.item(), chance_loss(64, 64))
        if scale_guard is not None:
            scale_guard.check(step, log_scale.exp().item(), guard.ratio)


def test_shuffled_pairs_leave_the_loss_at_chance_and_end_the_run() -> None:
    with pytest.raises(
        TrainingError, match=r"at step \d+ the loss is 4\.[12]\d+ on average.* ln\(batch\) = 4\.159.*shuffled"
    ):
        learn(StuckGuard(warmup_steps=10, patience=40), shuffle=True, steps=400)


def test_real_pairs_do_not() -> None:
    guard = StuckGuard(warmup_steps=10, patience=40)
    learn(guard)
    assert guard.ratio < 0.5


def test_a_model_from_scratch_may_begin_to_learn_late() -> None:
    with pytest.raises(TrainingError, match="Nothing is learnt"):
        learn(StuckGuard(warmup_steps=0, patience=40), late=80)
    learn(StuckGuard(warmup_steps=0, patience=400), late=80)


def test_a_run_shorter_than_the_patience_says_at_its_end_that_the_loss_is_at_chance() -> None:
    chance = math.log(32)
    guard = StuckGuard(warmup_steps=0, patience=1000)
    for step in range(1, 20):
        guard.check(step, chance, chance)
        assert guard.at_end() == ""  # too short to tell
    guard.check(20, chance, chance)
    assert "to the end the loss was within 2% of ln(batch)" in guard.at_end()
    for step in range(21, 41):
        guard.check(step, 1.2 * chance, chance)
    assert guard.at_end() == ""  # giving up wrong answers
    for step in range(41, 61):
        guard.check(step, 0.9 * chance, chance)
    assert guard.at_end() == ""


@pytest.mark.parametrize("patience", [1, 5])
def test_the_loss_is_judged_by_means_of_twenty_after_the_warm_up(patience: int) -> None:
    guard = StuckGuard(warmup_steps=7, patience=patience)
    last = 7 + 20 + patience - 1  # the first mean is there after 20 steps
    for step in range(1, last):
        guard.check(step, math.log(32), math.log(32))
    with pytest.raises(TrainingError, match=f"step {last} "):
        guard.check(last, math.log(32), math.log(32))


def test_a_loss_above_chance_is_waited_for_and_one_below_ends_the_watch() -> None:
    chance = math.log(32)
    above = StuckGuard(warmup_steps=0, patience=5)
    for step in range(1, 100):
        above.check(step, 1.11 * chance, chance)
    # With three losses from above left, the mean is 1 + 3 x 0.11 / 20 = 1.0165: so it is from step 116 on.
    for step in range(100, 120):
        above.check(step, chance, chance)
    with pytest.raises(TrainingError, match="For 5 steps"):
        above.check(120, chance, chance)

    below = StuckGuard(warmup_steps=0, patience=5)
    for step in range(1, 21):
        below.check(step, 0.9 * chance, chance)
    for step in range(21, 100):
        below.check(step, chance, chance)


@pytest.mark.parametrize(("images", "texts"), [(8, 8), (8, 24)])
def test_chance_is_the_loss_of_a_model_that_tells_nothing_apart(images: int, texts: int) -> None:
    positives = torch.arange(texts)[None, :] % images == torch.arange(images)[:, None]
    alike = [F.normalize(torch.ones(count, 4), dim=-1) for count in (images, texts)]
    loss = clip_loss(EmbeddedBatch(*alike, torch.tensor(50.0), positives=positives))
    assert chance_loss(images, texts) == pytest.approx(loss.item(), abs=1e-5)


def test_a_scale_that_halves_while_nothing_is_learnt_ends_the_run() -> None:
    patient = StuckGuard(warmup_steps=0, patience=10_000)
    with pytest.raises(TrainingError, match=r"scale fell from 20\.0 to \d+\.\d by step .*mismatched"):
        learn(patient, ScaleGuard(20.0), shuffle=True, steps=600)


def test_the_scale_of_real_pairs_and_of_random_weights_ends_nothing() -> None:
    learn(StuckGuard(warmup_steps=0), ScaleGuard(20.0))
    learn(StuckGuard(warmup_steps=0, patience=10_000), ScaleGuard(20.0, scratch=True), shuffle=True, steps=600)


def test_a_scale_that_moves_is_told_once() -> None:
    guard = ScaleGuard(100.0)
    lines = [guard.check(step, scale, 0.3) for step, scale in enumerate([100.0, 91.0, 89.0, 80.0, 40.0], start=1)]
    assert [bool(line) for line in lines] == [False, False, True, False, False]
    assert "from 100.0 to 89.0 by step 3" in lines[2]


@pytest.mark.parametrize(
    ("start", "recall", "pictures", "expected"),
    [
        (0.60, 0.55, None, False),  # less than a tenth of 0.60
        (0.60, 0.53, None, True),
        (0.10, 0.085, None, False),  # less than 0.02
        (0.10, 0.07, None, True),
        (0.60, 0.53, 100, False),  # within 2 x sqrt(0.6 x 0.4 / 100) = 0.098
        (0.60, 0.49, 100, True),
        (0.60, 0.53, 1000, True),  # 2 x sqrt(0.24 / 1000) = 0.031
        (0.60, 0.90, None, False),
        (0.0, 0.0, 10, False),
        (1.0, 0.85, 10, True),
        (0.60, math.nan, 100, True),
    ],
)
def test_a_clear_fall_at_the_first_validation(start: float, recall: float, pictures: int | None, expected: bool) -> None:
    assert first_check(start, recall, pictures) is expected


@pytest.mark.parametrize(
    ("recall", "pictures", "expected"),
    [
        (0.013, 400, True),  # what starter finds of 400 photographs
        (0.030, 400, True),
        (0.032, 400, False),
        (0.56, 400, False),
        (0.24, 50, False),  # chance 0.107, and 3 x 0.0437
        (0.23, 50, True),
        (0.1, 20, False),  # too few to say
    ],
)
def test_a_recall_that_chance_gives(recall: float, pictures: int, expected: bool) -> None:
    assert is_chance(recall, pictures) is expected


def test_guards_that_expect_nothing_go_on_expecting_nothing() -> None:
    guards = Guards(silent, warmup_steps=0, start_scale=100.0)
    guards.expect_nothing_of_the_start()

    again = Guards(silent, warmup_steps=0, start_scale=100.0)
    again.load_state_dict(guards.state_dict())

    alike = np.tile(np.eye(1, 8, dtype=np.float32), (9, 1))
    again.after_validation(np.eye(9, 8, dtype=np.float32)[:8], np.eye(8, dtype=np.float32))
    again.after_validation(alike, alike, "after epoch 1")
    assert again.after_step(1, 1.0, 1.0, 0.1, [0], 20.0, None) == "step"


@pytest.mark.parametrize(("loss", "lines"), [(1.6 * math.log(8), 1), (1.4 * math.log(8), 0)])
def test_a_start_worse_than_chance_may_be_all_alike_for_a_while(loss: float, lines: int) -> None:
    said: list[str] = []
    guards = Guards(lambda line, **_: said.append(line), warmup_steps=0, start_scale=20.0)
    guards.after_validation(np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32))

    guards.after_step(1, loss, 1.0, 0.1, [0], 20.0, chance=math.log(8))

    alike = np.tile(np.eye(1, 8, dtype=np.float32), (9, 1))
    with nullcontext() if lines else pytest.raises(TrainingError, match="all alike"):
        guards.after_validation(alike, alike, "after epoch 1")
    assert len(said) == lines


# --- memory

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_that_does_not_fit_is_run_again_in_smaller_pieces_from_zero_gradients(device: str) -> None:
    weight = torch.ones(1, device=device, requires_grad=True)
    sizes: list[int | None] = []
    lines: list[str] = []

    def run_step(size: int | None) -> str:
        sizes.append(size)
        for piece in torch.arange(12.0, device=device).split(size or 12):
            (weight * piece).sum().backward()
            if size is None or size > 2:  # the allocator refuses a petabyte
                torch.empty(2**50, dtype=torch.uint8, device=device)
        return "done"

    def clear() -> None:
        weight.grad = None

    found = with_enough_memory(run_step, None, 12, lambda line, **_: lines.append(line), clear)

    assert found == ("done", 1)
    assert sizes == [None, 6, 3, 1]
    assert weight.grad is not None
    assert weight.grad.item() == 66  # 0 + 1 + ... + 11, and nothing of the attempts before
    assert [line.split(": ")[1].split()[0] for line in lines] == ["6", "3", "1"]
    assert with_enough_memory(run_step, 2, 12, silent, clear) == ("done", 2)


def test_not_even_one_pair_fits() -> None:
    def run_step(_: int | None) -> Tensor:
        return torch.empty(2**50, dtype=torch.uint8)

    with pytest.raises(TrainingError, match=r"Not even one pair at a time.*memory.*smaller model"):
        with_enough_memory(run_step, 4, 4, silent, lambda: None)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    def says(**figures: str) -> int:
        for name, text in figures.items():
            (tmp_path / f"memory.{name}").write_text(text)
        return free_bytes(torch.device("cpu"), tmp_path)

    without = free_bytes(torch.device("cpu"), tmp_path)
    assert without > 50_000_000
    assert says(max="50000000\n", current="30000000\n", stat="anon 1\ninactive_file 5000000\n") == 25_000_000
    assert says(current="60000000\n") == 0
    assert says(max="max\n") > 50_000_000


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    attempts = []

    def run_step(size: int | None) -> Tensor:
        attempts.append(size)
        return torch.ones(2, 3) @ torch.ones(2, 3)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        with_enough_memory(run_step, None, 4, silent, lambda: None)
    assert attempts == [None]


def test_numpy_and_python_run_out_of_memory_too() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(2**50, dtype=np.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


SCRIPT = """
import resource, torch
from attune.training.memory import with_enough_memory
torch.set_num_threads(1)
weight = torch.ones(1_000_000, requires_grad=True)  # 4 MB; each row keeps some 8 MB for its backward pass
rows = torch.arange(1.0, 25.0)

def run_step(size):
    total = 0.0
    for piece in rows.split(size or len(rows)):
        loss = (piece[:, None] * weight).square().tanh().sum()
        loss.backward()
        total += loss.item()
    return total

def clear():
    weight.grad = None

expected = run_step(2)
gradient = weight.grad.clone()
clear()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
found, size = with_enough_memory(run_step, None, len(rows), lambda *_, **__: None, clear)
assert 1 <= size <= 12, size
assert abs(found - expected) <= 1e-3 * abs(expected), (found, expected)
assert torch.allclose(weight.grad, gradient, rtol=1e-4)
print("settled on", size)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of the address space are Linux's")
def test_a_process_with_little_memory_settles_on_what_fits() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("settled on ")
