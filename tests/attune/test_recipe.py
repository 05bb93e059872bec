import math

import open_clip
import pytest
import torch
from torch import nn

from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.errors import SettingsError
from attune.settings import SCHEDULERS
from attune.training.recipe import Recipe, choose_recipe
from attune.training.schedule import SHARES


class Sized(nn.Module):
    """So many weights, none of them in memory; like a SigLIP model with a `logit_bias`."""

    def __init__(self, parameters: float = 151e6, sigmoid: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(int(parameters), device="meta"))
        self.logit_bias = nn.Parameter(torch.zeros([])) if sigmoid else None


def recipe(
    network: nn.Module | None = None,
    pictures: int = 1024,
    groups: int | None = None,
    novelty: float = 0.0,
    **changes: object,
) -> Recipe:
    settings = check_settings({"model": "some#model", "train_data": "shapes", **changes})
    return choose_recipe(settings, network or Sized(), of_groups(pictures, groups or pictures), novelty)


def of_groups(pictures: int, groups: int) -> Pairs:
    """So many pictures, spread over so many groups."""
    keys = [str(number) for number in range(pictures)]
    return Pairs("", keys, [["a text"]] * pictures, [str(number % groups) for number in range(pictures)])


@pytest.mark.parametrize(
    ("groups", "batch_size"),
    [(1, 2), (10, 10), (16, 16), (40, 16), (64, 16), (100, 25), (1000, 250), (1024, 256), (100_000, 256)],
)
def test_a_batch_is_a_quarter_of_the_groups_between_16_and_256(groups: int, batch_size: int) -> None:
    assert recipe(pictures=200_000, groups=groups).batch_size == batch_size


def test_a_batch_never_holds_more_than_one_picture_of_each_group() -> None:
    assert recipe(pictures=100, groups=30, batch_size=64).batch_size == 30


@pytest.mark.parametrize(
    ("pictures", "batch_size", "steps_per_epoch", "epochs"),
    [
        (35, 16, 3, 40),  # 200 steps would take 67 epochs: that is learning by heart
        (70, 16, 5, 40),
        (100, 16, 7, 29),  # 29 x 7 = 203
        (640, 16, 40, 5),
        (641, 16, 41, 5),
        (1024, 256, 4, 40),
        (10_240, 256, 40, 5),
        (10**6, 256, 3907, 5),
    ],
)
def test_small_data_is_passed_over_until_there_are_200_steps(
    pictures: int, batch_size: int, steps_per_epoch: int, epochs: int
) -> None:
    found = recipe(pictures=pictures, batch_size=batch_size)

    assert (found.steps_per_epoch, found.epochs) == (steps_per_epoch, epochs)
    assert found.total_steps == steps_per_epoch * epochs


def test_an_epoch_may_be_a_part_of_the_pictures() -> None:
    found = recipe(pictures=10_000, batch_size=32, images_per_epoch=100)

    assert (found.steps_per_epoch, found.epochs) == (4, 50)  # 100 / 32 -> 4; 50 such epochs are half a pass
    few = recipe(pictures=1_000, batch_size=256, images_per_epoch=100)
    assert (few.batch_size, few.steps_per_epoch, few.epochs) == (100, 1, 200)
    assert recipe(pictures=100, batch_size=100, images_per_epoch=50).epochs == 80  # 40 passes
    assert recipe(pictures=50, batch_size=32, images_per_epoch=100).steps_per_epoch == 2


@pytest.mark.parametrize(
    ("parameters", "batch_size", "changes", "rate"),
    [
        (151e6, 256, {}, 1e-5),
        (151e6, 64, {}, 5e-6),  # a quarter of the batch: half the rate
        (151e6, 1024, {"batch_size": 1024}, 2e-5),
        (428e6, 256, {}, 3.5e-6),  # a ViT-L-14: 151 / 428 = 0.353
        (5e6, 256, {}, 3e-4),  # 151 / 5 = 30.2
        (151e6, 256, {"lora_rank": 4}, 1e-4),
        (1e6, 256, {"lora_rank": 4}, 1e-3),  # 1.5e-2 would be too much
        (151e6, 256, {"model": "ViT-B-32#scratch"}, 1e-3),
        (428e6, 64, {"model": "ViT-L-14#scratch"}, 5e-4),
        (428e6, 64, {"learning_rate": 0.25}, 0.25),
    ],
)
def test_the_learning_rate_follows_size_and_batch(
    parameters: float, batch_size: int, changes: dict[str, object], rate: float
) -> None:
    found = recipe(Sized(parameters), pictures=4096, **{"batch_size": batch_size, **changes})

    assert found.batch_size == batch_size
    assert found.learning_rate == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("novelty", "parameters", "changes", "rate"),
    [
        (0.0, 151e6, {}, 1e-5),
        (0.3, 151e6, {}, 1e-5),
        (0.65, 151e6, {}, 3.2e-5),  # half of the way: the root of 10
        (1.0, 151e6, {}, 1e-4),
        (1.0, 151e6, {"lora_rank": 4}, 1e-3),
        (1.0, 5e6, {}, 2e-3),  # 3e-3 would be too much
        (1.0, 5e6, {"lora_rank": 4}, 1e-3),
        (0.0, 0.5e6, {}, 1e-3),
        (1.0, 151e6, {"model": "ViT-B-32#scratch"}, 1e-3),
        (1.0, 151e6, {"learning_rate": 1e-6}, 1e-6),
    ],
)
def test_steps_are_longer_on_data_that_is_new_to_the_model(
    novelty: float, parameters: float, changes: dict[str, object], rate: float
) -> None:
    found = recipe(Sized(parameters), pictures=4096, novelty=novelty, **changes)

    assert found.novelty == novelty
    assert found.learning_rate == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("steps", "changes", "warmup"),
    [
        (1000, {}, 100),
        (100, {}, 20),  # a tenth would be 10
        (50, {}, 10),  # a fifth
        (4, {}, 0),
        (5, {}, 1),
        (20_000, {}, 500),
        (1000, {"warmup_ratio": 0.3}, 300),
        (1000, {"warmup_ratio": 0}, 0),
        (1000, {"scheduler": "constant"}, 0),
        (1000, {"scheduler": "constant_with_warmup"}, 100),
    ],
)
def test_warm_up_is_a_tenth_of_the_steps_within_bounds(steps: int, changes: dict[str, object], warmup: int) -> None:
    found = recipe(pictures=2 * steps, batch_size=2, epochs=1, **changes)

    assert (found.total_steps, found.warmup_steps) == (steps, warmup)


@pytest.mark.parametrize(
    ("steps", "changes", "decay"),
    [
        (29, {}, 0.0),
        (30, {}, 0.9),
        (300, {}, 0.99),
        (3000, {}, 0.999),
        (300, {"ema_decay": 0.5}, 0.5),
        (300, {"ema_decay": 0}, 0),
    ],
)
def test_weights_are_averaged_over_a_third_of_the_run_if_it_is_long_enough(
    steps: int, changes: dict[str, object], decay: float
) -> None:
    assert recipe(pictures=2 * steps, batch_size=2, epochs=1, **changes).ema_decay == pytest.approx(decay)


def test_there_is_an_average_for_a_teacher_that_is_asked_for_however_short_the_run() -> None:
    short = recipe(pictures=58, batch_size=2, epochs=1, self_distillation=0.3)

    assert (short.self_distillation, short.ema_decay) == (0.3, pytest.approx(1 - 3 / 29))


def test_a_sigmoid_loss_has_no_target_for_a_teacher() -> None:
    with pytest.raises(SettingsError, match=r"self_distillation = 0.3 is a share .* 'auto' is SigLIPLoss for this model"):
        recipe(Sized(1e6, True), self_distillation=0.3)


@pytest.mark.parametrize(
    ("changes", "augmentation"),
    [
        ({}, "light"),
        ({"model": "ViT-B-32#scratch"}, "strong"),
        ({"lock_image": True}, "none"),
        ({"lock_image": True, "augmentation": "strong"}, "strong"),
        ({"lock_text": True}, "light"),
        ({"augmentation": "none"}, "none"),
    ],
)
def test_augmentation_fits_what_is_trained(changes: dict[str, object], augmentation: str) -> None:
    assert recipe(**changes).augmentation == augmentation


@pytest.mark.parametrize(
    ("novelty", "changes", "augmentation", "flip"),
    [
        (0.64, {}, "light", 0.0),
        (0.65, {}, "strong", 0.5),
        (1.0, {"model": "ViT-B-32#scratch"}, "strong", 0.0),
        (1.0, {"lock_image": True}, "none", 0.0),
        (1.0, {"augmentation": "none"}, "none", 0.0),
        (1.0, {"augmentation": "light"}, "light", 0.5),
        (1.0, {"augmentation": "none", "horizontal_flip": 0.3}, "none", 0.3),
        (0.0, {"horizontal_flip": 1}, "light", 1.0),
        (1.0, {"horizontal_flip": 0}, "strong", 0.0),
    ],
)
def test_pictures_are_changed_more_where_they_are_new_to_the_model(
    novelty: float, changes: dict[str, object], augmentation: str, flip: float
) -> None:
    found = recipe(novelty=novelty, **changes)

    assert (found.augmentation, found.horizontal_flip) == (augmentation, flip)


@pytest.mark.parametrize(
    ("novelty", "changes", "batch_size", "epochs"),
    [
        (0.64, {}, 256, 25),  # 8 steps of each
        (0.65, {}, 126, 26),  # 16
        (1.0, {"model": "ViT-B-32#scratch"}, 256, 25),
        (1.0, {"batch_size": 64, "epochs": 3}, 64, 3),
    ],
)
def test_a_model_that_knows_little_takes_more_and_smaller_batches(
    novelty: float, changes: dict[str, object], batch_size: int, epochs: int
) -> None:
    found = recipe(pictures=1900, novelty=novelty, **changes)

    assert (found.batch_size, found.epochs) == (batch_size, epochs)


@pytest.mark.parametrize(
    ("novelty", "changes", "decay", "scale"),
    [
        (0.0, {}, 0.9, 0.1),
        (0.64, {}, 0.9, 0.1),
        (0.65, {}, 1.0, 1.0),  # as random weights
        (0.0, {"model": "ViT-B-32#scratch"}, 1.0, 1.0),
        (0.0, {"layer_wise_lr_decay": 0.6, "logit_scale": "frozen"}, 0.6, 0.0),
        (1.0, {"layer_wise_lr_decay": 0.8, "logit_scale": "frozen"}, 0.8, 0.0),
        (0.0, {"model": "ViT-B-32#scratch", "layer_wise_lr_decay": 0.6, "logit_scale": "slow"}, 0.6, 0.1),
        (0.0, {"logit_scale": "learned"}, 0.9, 1.0),
    ],
)
def test_a_model_that_knows_much_is_changed_carefully_and_one_that_knows_little_is_not(
    novelty: float, changes: dict[str, object], decay: float, scale: float
) -> None:
    found = recipe(novelty=novelty, **changes)

    assert (found.layer_wise_lr_decay, found.logit_scale_rate) == (decay, scale)


@pytest.mark.parametrize(
    ("sigmoid", "wanted", "loss"),
    [
        (False, "auto", "CLIPLoss"),
        (True, "auto", "SigLIPLoss"),
        (True, "CLIPLoss", "CLIPLoss"),
    ],
)
def test_the_loss_is_the_one_the_model_was_pre_trained_with(sigmoid: bool, wanted: str, loss: str) -> None:
    assert recipe(Sized(1e6, sigmoid), loss=wanted).loss == loss


@pytest.mark.parametrize("init_logit_bias", [None, -10.0])
def test_open_clips_models_say_by_logit_bias_how_they_were_trained(init_logit_bias: float | None) -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(
            embed_dim=8,
            vision_cfg={"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
            text_cfg={"context_length": 4, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1},
            init_logit_bias=init_logit_bias,
        )

    assert recipe(model).loss == ("CLIPLoss" if init_logit_bias is None else "SigLIPLoss")


def rates(scheduler: str, epochs: int = 1, **options: object) -> list[float]:
    """Of all 10 steps of a run with 2 of warm-up and a peak of 0.8."""
    given: dict[str, object] = {"scheduler": scheduler, "scheduler_options": options, "learning_rate": 0.8}
    if "num_warmup_steps" not in options and scheduler != "constant":
        given["warmup_ratio"] = 0.2
    found = recipe(pictures=20 // epochs, batch_size=2, epochs=epochs, **given)
    return [found.learning_rate_at(step) for step in range(found.total_steps)]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("cosine", [0.4, 0.8, *(0.4 * (1 + math.cos(math.pi * step / 8)) for step in range(8))]),
        ("cosine_with_restarts", [0.4, 0.8, *[0.4 * (1 + math.cos(math.pi * step / 4)) for step in range(4)] * 2]),
        ("linear", [0.4, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("polynomial", [0.4, 0.8, *(0.8 * (1 - step / 8) ** 2 for step in range(8))]),
        ("constant_with_warmup", [0.4, *[0.8] * 9]),
        ("constant", [0.8] * 10),
    ],
)
def test_the_learning_rate_rises_and_falls_as_the_scheduler_says(scheduler: str, expected: list[float]) -> None:
    assert rates(scheduler) == pytest.approx(expected)


def test_every_scheduler_reaches_the_peak_and_moves_to_the_last_step() -> None:
    for scheduler in SCHEDULERS:
        assert max(rates(scheduler)) == pytest.approx(0.8)
        assert min(rates(scheduler)) > 0


def test_the_record_has_every_decision_with_a_plain_value() -> None:
    record = recipe(pictures=100).record()

    assert record["total_steps"] == record["epochs"] * record["steps_per_epoch"]
    assert "auto" not in record.values()
    assert all(isinstance(value, int | float | str | dict) for value in record.values())


@pytest.mark.parametrize(
    ("scheduler", "options", "expected"),
    [
        ("linear", {"num_training_steps": 6}, [0.4, 0.8, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0]),
        ("linear", {"num_training_steps": 1}, [0.4, 0.8, 0.8, 0, 0, 0, 0, 0, 0, 0]),
        ("constant_with_warmup", {"num_warmup_steps": 4}, [0.2, 0.4, 0.6, *[0.8] * 7]),
        ("constant_with_warmup", {"num_warmup_steps": 20}, [0.08 * step for step in range(1, 11)]),
        ("polynomial", {"power": 1, "num_warmup_steps": 0}, [0.8 - 0.08 * step for step in range(10)]),
        ("cosine", {"num_cycles": 1, "num_warmup_steps": 0}, [0.4 + 0.4 * math.cos(math.pi * n / 5) for n in range(10)]),
        ("cosine_with_restarts", {"num_training_steps": 6, "num_cycles": 1}, [0.4, 0.8, 0.8, 0.6828, 0.4, 0.1172, *[0] * 4]),
    ],
)
def test_a_schedule_can_be_changed(scheduler: str, options: dict[str, object], expected: list[float]) -> None:
    assert rates(scheduler, **options) == pytest.approx(expected, abs=1e-4)


def test_the_rate_may_change_with_epochs_alone() -> None:
    """Two epochs of five steps: after warm-up, the first step's of each epoch."""
    found = rates("linear", epochs=2, scheduler_step="epoch")
    assert found == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.8, *[0.8 * 5 / 8] * 5])


def test_every_scheduler_has_a_shape() -> None:
    assert set(SCHEDULERS) == set(SHARES)


@pytest.mark.parametrize(
    ("settings", "decay"),
    [({}, 0.1), ({"optimizer": "Adam"}, 0), ({"optimizer": "Adam", "weight_decay": 0.01}, 0.01), ({"weight_decay": 0}, 0)],
)
def test_decay_is_clips_where_it_is_apart_from_the_gradient(settings: dict[str, object], decay: float) -> None:
    assert recipe(**settings).weight_decay == decay
