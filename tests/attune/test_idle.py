"""What is set and would do nothing is refused; what is left alone never is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attune.config import check_settings
from attune.data.idle import LEARNT, MEASURED
from attune.data.pairs import Pairs
from attune.errors import SettingsError
from attune.idle import IDLE, Idle, idle
from attune.kinds import EMBEDDING, IMAGE, KINDS, MATCH, SINGLE_EMBEDDING, SINGLE_IMAGE, SINGLE_TEXT, TEXT, Kind
from attune.schemas import DatasetReport, FinetuningRun
from attune.validation import validate
from tests.attune.singles import shapes
from tests.attune.trained import QUICK

NEEDED = {"model": "starter", "train_data": "shapes"}

BESIDE_OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"retention_max_drop": 0.2}, "retention_max_drop = 0.2 is the most that may be lost on retention_data"),
    ({"sampler": "random", "num_items_per_class": 8}, "num_items_per_class = 8 is for batches in which classes meet"),
    ({"sampler": "hard-batch", "num_items_per_class": 8}, "those of sampler = 'hard-batch' do not"),
    ({"sampler": "image-unique", "multi_positive": True}, "sampler = 'image-unique' takes each picture with one of its"),
    (
        {"loss_optimizer": "SGD"},
        "loss_optimizer = 'SGD' is for weights that a loss has of its own, and loss = 'auto' has none",
    ),
    ({"loss": "FastAPLoss", "loss_learning_rate": 0.1}, "loss_learning_rate = 0.1 is for weights that a loss"),
    ({"loss": "MarginLoss", "loss_optimizer_options": {"eps": 1}}, "loss_optimizer_options = {'eps': 1} is for weights"),
    ({"loss": "TripletMarginLoss", "logit_scale": "learned"}, "logit_scale = 'learned' is how the model's temperature"),
    ({"loss": "SigLIPLoss", "self_distillation": 0.3}, "self_distillation = 0.3 is a share of the target of CLIPLoss, and"),
    ({"ema_decay": 0, "self_distillation": 0.3}, "and ema_decay = 0 keeps none. Leave it out, or raise ema_decay"),
    ({"scheduler": "constant", "warmup_ratio": 0.2}, "warmup_ratio = 0.2 asks for a warm-up, and scheduler = 'constant'"),
    (
        {"scheduler": "constant_with_warmup", "scheduler_options": {"num_training_steps": 9}},
        "scheduler_options.num_training_steps = 9 is about a rate that changes",
    ),
    (
        {"scheduler": "constant", "scheduler_options": {"scheduler_step": "epoch"}},
        "scheduler_options.scheduler_step = 'epoch' is about",
    ),
    ({"hard_negatives": 0.3, "epochs": 3}, "hard_negatives = 0.3 is a share of the epochs, and of 3 it is less than one"),
    ({"devices": "cuda:0,1", "processes": 1}, "processes = 1 is less than the GPUs of devices = 'cuda:0,1'"),
    ({"train_data": None, "eval_data": "other", "devices": "cuda:0,1"}, "devices = 'cuda:0,1' names several GPUs"),
]

NOT_IDLE: list[dict[str, Any]] = [
    {"retention_data": "other", "retention_max_drop": 0.2},
    {"sampler": "class", "num_items_per_class": 8},
    {"num_items_per_class": 8},  # the data decides
    {"sampler": "random", "multi_positive": True},
    {"loss": "ArcFaceLoss", "loss_learning_rate": 0.1, "loss_optimizer": "SGD"},
    {"loss": "MarginLoss", "loss_options": {"learn_beta": True}, "loss_learning_rate": 0.1},
    {"loss": "MultipleLosses", "loss_options": {"losses": ["CLIPLoss", "ArcFaceLoss"]}, "loss_learning_rate": 0.1},
    {"loss": "TripletMarginLoss", "logit_scale": "frozen"},
    {"loss": "SigLIPLoss", "logit_scale": "learned"},
    {"scheduler": "constant", "warmup_ratio": 0},
    {"scheduler": "linear", "scheduler_options": {"num_training_steps": 9}, "warmup_ratio": 0.2},
    {"hard_negatives": 0.34, "epochs": 3},
    {"hard_negatives": 0.1},
]


@pytest.mark.parametrize(("settings", "said"), BESIDE_OTHERS)
def test_what_other_settings_leave_nothing_to_do_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_settings({**NEEDED, **settings})

    _, line = str(refused.value).splitlines()
    assert said in line
    assert ". Leave it out" in line


@pytest.mark.parametrize("settings", NOT_IDLE)
def test_what_has_something_to_do_is_let_through(settings: dict[str, Any]) -> None:
    assert check_settings({**NEEDED, **settings})


@pytest.mark.parametrize("changes", [{}, {"scheduler": "constant"}, {"sampler": "random"}, {"loss": "TripletMarginLoss"}])
def test_settings_with_every_default_written_out_are_let_through(changes: dict[str, Any]) -> None:
    settings = check_settings({**NEEDED, **changes})

    assert check_settings(settings.model_dump(mode="json")) == settings


def data(kind: Kind, captions: int = 2, labels: bool = True, scores: bool = False) -> Pairs:
    """Four items, with so many captions each if their kind has any."""
    keys = list("abcd")
    own = [[] if kind.is_single else [f"{key} {number}" for number in range(captions)] for key in keys]
    graded = [[0.5] * captions] * 4 if scores else []
    return Pairs("", keys, own, keys, list("xxyy") if labels else [], kind=kind, queries=keys * kind.of_texts, scores=graded)


SINGLES = (SINGLE_IMAGE, SINGLE_TEXT, SINGLE_EMBEDDING)
WITH_DATA: list[tuple[dict[str, Any], list[Pairs], str]] = [
    ({"mask_duplicates": True}, [data(kind) for kind in SINGLES], "mask_duplicates = True is about captions that fit other"),
    (
        {"mask_duplicates": False},
        [data(kind) for kind in SINGLES],
        "mask_duplicates = False is about captions that fit other",
    ),
    ({"mask_duplicates": True}, [data(TEXT, scores=True)], "negatives that are none, and loss = 'auto' looks at no such"),
    ({"mask_duplicates": False, "loss": "ArcFaceLoss"}, [data(IMAGE)], "loss = 'ArcFaceLoss' looks at no such pairs"),
    ({"check_pairs": True}, [data(kind) for kind in SINGLES], "check_pairs = True is about captions that do not fit"),
    ({"check_pairs": False}, [data(TEXT, scores=True)], "check_pairs = False is about documents that do not fit"),
    ({"multi_positive": True}, [data(kind) for kind in SINGLES], "multi_positive = True takes all captions of a"),
    ({"multi_positive": True}, [data(MATCH, 1)], "several matches of a picture, and no picture has more than one"),
    ({"caption_mixing": 0.5}, [data(IMAGE, 1)], "caption_mixing = 0.5 joins two captions of a picture, and no picture has"),
    ({"caption_mixing": 0.5, "word_dropout": 0.5}, [data(MATCH), data(SINGLE_TEXT)], "word_dropout = 0.5 changes captions"),
    ({"num_items_per_class": 8}, [data(IMAGE), data(SINGLE_TEXT, labels=False)], "with loss = 'auto' the batches do not"),
    (
        {"num_items_per_class": 8, "loss": "ArcFaceLoss"},
        [data(SINGLE_IMAGE)],
        "with loss = 'ArcFaceLoss' the batches do not",
    ),
    ({"logit_scale": "slow"}, [data(kind) for kind in SINGLES], "logit_scale = 'slow' is how the model's temperature"),
    ({"self_distillation": 0.3}, [data(TEXT, scores=True), data(SINGLE_IMAGE)], "self_distillation = 0.3 is a share of the"),
    ({"augmentation": "light"}, [data(TEXT), data(EMBEDDING), data(SINGLE_EMBEDDING)], "augmentation = 'light' changes"),
    ({"horizontal_flip": 0.5}, [data(TEXT), data(SINGLE_EMBEDDING)], "horizontal_flip = 0.5 changes pictures"),
    ({"model_options": {"image_size": 64}}, [data(TEXT), data(EMBEDDING)], "model_options.image_size = 64 is of pictures"),
    ({"model_options": {"context_length": 9}}, [data(MATCH), data(SINGLE_IMAGE)], "context_length = 9 is of texts"),
]
WITH_DATA_ALL_IS_WELL: list[tuple[dict[str, Any], Pairs]] = [
    ({"mask_duplicates": True, "check_pairs": True, "logit_scale": "learned"}, data(IMAGE)),
    ({"mask_duplicates": False, "loss": "TripletMarginLoss"}, data(IMAGE)),
    ({"multi_positive": True, "word_dropout": 0.1, "self_distillation": 0.3}, data(TEXT)),
    ({"caption_mixing": 0.5}, data(IMAGE)),
    ({"num_items_per_class": 8}, data(SINGLE_IMAGE)),
    ({"num_items_per_class": 8, "loss": "FastAPLoss"}, data(IMAGE)),
    ({"logit_scale": "frozen", "augmentation": "none", "horizontal_flip": 0}, data(SINGLE_TEXT)),
    ({"horizontal_flip": 0.5}, data(IMAGE)),
]


@pytest.mark.parametrize(("settings", "given", "said"), WITH_DATA)
def test_what_the_data_leaves_nothing_to_do_is_refused(settings: dict[str, Any], given: list[Pairs], said: str) -> None:
    for pairs in given:
        found = idle(LEARNT, check_settings({**NEEDED, **settings}), pairs)

        assert said in " ".join(found.values())
        assert all(". Leave it out" in line for line in found.values())


@pytest.mark.parametrize(("settings", "pairs"), WITH_DATA_ALL_IS_WELL)
def test_what_the_data_can_use_is_let_through(settings: dict[str, Any], pairs: Pairs) -> None:
    assert idle(LEARNT, check_settings({**NEEDED, **settings}), pairs) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_alone_is_never_refused(kind: Kind) -> None:
    for settings in ({}, {"sampler": "random"}, {"loss": "ArcFaceLoss"}, {"scheduler": "constant"}):
        for pairs in (data(kind, 1), data(kind, labels=False)):
            assert idle((*LEARNT, *MEASURED), check_settings({**NEEDED, **settings}), pairs) == {}


def test_prompts_take_pictures_with_captions_and_labels() -> None:
    settings = check_settings({**NEEDED, "prompt_templates": "simple"})

    assert "are for pictures with captions" in idle(MEASURED, settings, data(TEXT))["prompt_templates"]
    assert "no held-out picture has a label" in idle(MEASURED, settings, data(IMAGE, labels=False))["prompt_templates"]
    assert idle(MEASURED, settings, data(IMAGE)) == {}


@pytest.mark.parametrize(
    ("table", "tried"),
    [(IDLE, [settings for settings, _ in BESIDE_OTHERS]), (LEARNT, [settings for settings, *_ in WITH_DATA])],
    ids=["IDLE", "LEARNT"],
)
def test_every_row_of_the_tables_is_tried_here(table: tuple[Idle, ...], tried: list[dict[str, Any]]) -> None:
    inner = {f"{name}.{one}" for given in tried for name, value in given.items() if isinstance(value, dict) for one in value}

    assert {name for row in table for name in row.names} <= {name for given in tried for name in given} | inner


def test_a_run_does_not_say_that_it_does_what_it_does_not(
    attune_home: Path, tiny_vit: Path, push: Callable[..., DatasetReport]
) -> None:
    push("shapes", shapes(64))
    settings = {**QUICK, "model": str(tiny_vit)}

    with pytest.raises(
        SettingsError, match="with single pictures, as 'shapes' has them:\n- mask_duplicates = True is about"
    ):
        validate(FinetuningRun(settings={**settings, "mask_duplicates": True}))

    complete = validate(FinetuningRun(settings=settings))["settings"]
    assert not {"mask_duplicates", "check_pairs"} & complete.keys()
    assert validate(FinetuningRun(settings=complete))["settings"] == complete  # as when it is tried again
