import json

import pydantic
import pytest

from attune.config import check_settings
from attune.settings import FinetuningSettings
from attune.errors import SettingsError

NEEDED = {"model": "starter", "train_data": "shapes"}


@pytest.mark.parametrize("field", FinetuningSettings.model_fields)
def test_every_setting_is_described_in_a_sentence(field: str) -> None:
    description = FinetuningSettings.model_fields[field].description

    assert description
    assert description.endswith(".")


def test_model_and_data_are_enough() -> None:
    settings = check_settings(NEEDED)

    chosen = {"epochs": 5, "batch_size": 256, "learning_rate": 1e-5, "loss": "CLIPLoss", "precision": "auto", "seed": 0}
    assert settings.model_dump(include=set(chosen)) == chosen
    assert settings.eval_data is None


def test_settings_survive_being_written_out_with_every_default() -> None:
    settings = check_settings({**NEEDED, "epochs": 3})

    assert check_settings(json.loads(settings.model_dump_json())) == settings


def test_settings_cannot_be_changed() -> None:
    settings = check_settings(NEEDED)

    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.epochs = 7  # type: ignore[misc]


def test_all_problems_come_together_each_with_its_field_and_value() -> None:
    wrong = {
        "train_data": "no/slash",
        "eval_data": "no/slash",
        "eval_split": 0.5,
        "val_split": 0.45,
        "epoch": 3,
        "loss": "ClipLoss",
        "batch_size": 1,
        "precision": "fp8",
        "learning_rate": "fast",
    }

    with pytest.raises(SettingsError) as caught:
        check_settings(wrong)

    heading, *lines = str(caught.value).splitlines()
    assert heading == "The settings cannot be used:"
    said = "\n".join(lines)
    for part in (
        "- model is missing: `starter`",
        "- train_data = 'no/slash' is not a valid name. Use 1 to 100 letters",
        "- epoch = 3: there is no such setting (did you mean 'epochs'?)",
        "- loss = 'ClipLoss' is not known (did you mean 'CLIPLoss'?). Use one of: CLIPLoss",
        "- batch_size = 1: input should be greater than or equal to 2. Pairs per optimizer step",
        "- precision = 'fp8': input should be 'auto', 'bf16' or 'fp32'. Arithmetic",
        "- learning_rate = 'fast': input should be a valid number",
        "- eval_data and train_data are both 'no/slash'",
        "- eval_data ('no/slash') and eval_split (0.5) are two answers to one question. Give eval_data alone",
    ):
        assert part in said, said
    assert said.count("\n- ") + 1 == 10  # one line each; eval_data's own bad name is the tenth


def test_two_splits_that_leave_nothing_to_train_on_are_refused_together() -> None:
    with pytest.raises(SettingsError, match=r"eval_split \(0\.5\) and val_split \(0\.45\) leave less than a tenth"):
        check_settings({**NEEDED, "eval_split": 0.5, "val_split": 0.45})


def test_eval_data_leaves_the_training_data_whole_but_for_val_split() -> None:
    assert check_settings({**NEEDED, "eval_data": "other", "val_split": 0.85}).val_split == 0.85


def test_an_unknown_setting_that_is_like_none_is_answered_with_the_list() -> None:
    with pytest.raises(SettingsError, match=r"zzz = 1: there is no such setting\. The settings are: model, train_data,"):
        check_settings({**NEEDED, "zzz": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0),
        ("learning_rate", 2),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("warmup_ratio", 1),
        ("max_grad_norm", 0),
        ("max_grad_norm", float("inf")),
        ("eval_split", 0),
        ("val_split", 1),
        ("val_split", "a lot"),
        ("optimizer", "Adam"),
        ("scheduler", "linear"),
        ("augmentation", "some"),
        ("artifact_precision", "bf16"),
        ("device", "gpu"),
        ("device", "cuda:"),
        ("seed", -1),
        ("seed", 2**31),
        ("train_data", ""),
        ("train_data", None),
        ("train_data", ".hidden"),
        ("model", ""),
    ],
)
def test_refuses_a_value_out_of_range_and_names_its_field(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"(?s)^The settings cannot be used:\n- {field} = "):
        check_settings({**NEEDED, field: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_accepts_device_names(device: str) -> None:
    assert check_settings({**NEEDED, "device": device}).device == device
