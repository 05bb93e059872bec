import json

import pydantic
import pytest

from attune.callback_settings import KINDS, kind_of
from attune.config import SETTINGS, changed_settings, check_settings
from attune.errors import SettingsError
from attune.finetuner import HINTS
from attune.settings import EVALUATION, FinetuningSettings, SchedulerOptions

NEEDED = {"model": "starter", "train_data": "shapes"}


@pytest.mark.parametrize(
    ("model", "field"),
    [(model, field) for model in (FinetuningSettings, *KINDS.values(), SchedulerOptions) for field in model.model_fields],
)
def test_every_setting_is_described_in_a_sentence(model: type[pydantic.BaseModel], field: str) -> None:
    description = model.model_fields[field].description

    assert description
    assert description.endswith(".")


def test_model_and_data_are_enough() -> None:
    settings = check_settings(NEEDED)

    assert (settings.seed, settings.max_grad_norm, settings.scheduler) == (0, 1.0, "cosine")
    assert settings.eval_data is None


AUTO = (
    "val_split",
    "loss",
    "epochs",
    "batch_size",
    "sampler",
    "learning_rate",
    "layer_wise_lr_decay",
    "weight_decay",
    "logit_scale",
    "augmentation",
    "horizontal_flip",
    "ema_decay",
    "precision",
    "devices",
    "processes",
)


def test_what_depends_on_model_and_data_is_auto_unless_it_is_said() -> None:
    chosen = check_settings(NEEDED).model_dump()

    assert tuple(name for name, value in chosen.items() if value == "auto") == AUTO


@pytest.mark.parametrize("field", AUTO)
def test_auto_may_be_written_out_and_nothing_near_it(field: str) -> None:
    assert check_settings({**NEEDED, field: "auto"}).model_dump()[field] == "auto"
    with pytest.raises(SettingsError, match=rf"(?s)^The settings cannot be used:\n- {field} = 'Auto'[^\n]*$"):
        check_settings({**NEEDED, field: "Auto"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "SigLIPLoss"),
        ("epochs", 3),
        ("batch_size", 64),
        ("learning_rate", 1e-5),
        ("layer_wise_lr_decay", 1.0),
        ("logit_scale", "frozen"),
        ("augmentation", "strong"),
        ("horizontal_flip", 0.5),
        ("ema_decay", 0.0),
        ("self_distillation", 0.3),
        ("precision", "bf16"),
        ("devices", "cuda:0,1"),
        ("processes", 2),
    ],
)
def test_what_is_said_is_kept(field: str, value: object) -> None:
    assert getattr(check_settings({**NEEDED, field: value}), field) == value


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
        "loss": "CLIPLos",
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
        "- loss = 'CLIPLos' is not known (did you mean 'CLIPLoss'?). Use one of: CLIPLoss",
        "- batch_size = 1: input should be greater than or equal to 2. Pictures per optimizer step",
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
    with pytest.raises(SettingsError, match=r"zzz = 1: there is no such setting\. The settings are: model, model_artifact,"):
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
        ("optimizer", "Adams"),
        ("optimizer", "LBFGS"),
        ("optimizer_options", [1]),
        ("scheduler_options", 3),
        ("scheduler", "exponential"),
        ("augmentation", "some"),
        ("artifact_precision", "bf16"),
        ("devices", "gpu"),
        ("devices", "cuda:"),
        ("devices", "cuda:0,"),
        ("devices", "cuda:0;1"),
        ("processes", 0),
        ("micro_batch_size", 0),
        ("images_per_epoch", 1),
        ("layer_wise_lr_decay", 0),
        ("layer_wise_lr_decay", 1.1),
        ("logit_scale", "fast"),
        ("train_last_blocks", -1),
        ("lora_rank", -1),
        ("hard_negatives", 1.1),
        ("word_dropout", 1),
        ("caption_mixing", 1.1),
        ("ema_decay", 1),
        ("early_stopping_patience", -1),
        ("retention_max_drop", -0.1),
        ("retention_data", "no/slash"),
        ("val_data", "no/slash"),
        ("seed", -1),
        ("seed", 2**31),
        ("train_data", ""),
        ("train_data", ".hidden"),
        ("model", ""),
    ],
)
def test_refuses_a_value_out_of_range_and_names_its_field(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"(?s)^The settings cannot be used:\n- {field} = "):
        check_settings({**NEEDED, field: value})


@pytest.mark.parametrize(
    ("devices", "gpus"),
    [("auto", []), ("cpu", []), ("cuda", [0]), ("cuda:3", [3]), ("cuda:0,1", [0, 1]), ("cuda:2,0", [2, 0])],
)
def test_accepts_devices(devices: str, gpus: list[int]) -> None:
    settings = check_settings({**NEEDED, "devices": devices})

    assert (settings.devices, settings.gpus) == (devices, gpus)


def test_the_old_name_of_devices_is_answered_with_the_new_one() -> None:
    with pytest.raises(SettingsError, match="device = 'cpu': there is no such setting: use devices"):
        check_settings({**NEEDED, "device": "cpu"})


OF_FINETUNER = (  # the arguments of its `fit`
    "model train_data eval_data val_split model_artifact run_name description experiment_name model_options loss miner "
    "miner_options optimizer optimizer_options learning_rate epochs batch_size callbacks scheduler scheduler_options freeze "
    "output_dim device num_workers to_onnx csv_options public num_items_per_class sampler loss_optimizer "
    "loss_optimizer_options"
).split()


@pytest.mark.parametrize("argument", [name for name in OF_FINETUNER if name not in SETTINGS])
def test_an_argument_of_finetuners_that_is_no_setting_is_answered_with_what_to_do(argument: str) -> None:
    with pytest.raises(SettingsError) as error:
        check_settings({**NEEDED, argument: True})

    said = str(error.value)
    hint = "give it in model_options, as {'output_dim': ...}" if argument == "output_dim" else HINTS[argument]
    assert f"- {argument} = True: there is no such setting: {hint}" in said
    assert "The settings are" not in said


def test_hints_name_settings_that_there_are() -> None:
    assert not HINTS.keys() & set(SETTINGS)
    assert "devices" in SETTINGS
    assert HINTS["device"] == "use devices"
    assert {"lock_image", "lock_text", "train_last_blocks"} <= {word.strip(",") for word in HINTS["freeze"].split()}
    assert {"lock_image", "lock_text", "train_last_blocks"} <= {*SETTINGS}


def test_a_name_is_answered_with_what_runs_are_named_by() -> None:
    with pytest.raises(SettingsError, match="name = 'x': there is no such setting: a run's name is run_name in Python"):
        check_settings({**NEEDED, "name": "x"})


def test_the_nearest_settings_are_named_and_not_all() -> None:
    with pytest.raises(SettingsError) as error:
        check_settings({**NEEDED, "loss_optimiser": "SGD"})

    assert str(error.value).endswith(
        "there is no such setting (did you mean 'loss_optimizer' or 'loss_options' or 'loss_optimizer_options'?). "
        "All are in docs/settings.md"
    )


CONTRADICTIONS = [
    ({"train_data": None}, "train_data is missing: give it to train, or eval_data alone to measure the model as it is"),
    (
        {"train_data": None, "eval_data": "other", "epochs": 3, "retention_data": "third", "val_split": 0.2},
        "nothing is trained without train_data: leave out val_split, retention_data, epochs, or give train_data",
    ),
    ({"baseline": "starter"}, "baseline = 'starter' is for runs that train nothing"),
    ({"retention_data": "shapes"}, "retention_data = 'shapes' is also train_data, eval_data or val_data"),
    (
        {"retention_data": "other", "eval_data": "other"},
        "retention_data = 'other' is also train_data, eval_data or val_data",
    ),
    ({"lock_image": True, "lock_text": True}, "lock_image and lock_text are both true: there is nothing to train"),
    (
        {"lock_image": True, "lock_text": True, "lora_rank": 4},
        "lock_image and lock_text are both true: lora_rank = 4 has no tower to change",
    ),
    ({"lora_rank": 4, "train_last_blocks": 2}, "lora_rank (4) and train_last_blocks (2) are two ways to train little"),
    ({"lora_rank": 4, "train_last_blocks": 0}, "lora_rank (4) and train_last_blocks (0) are two ways to train little"),
    ({"multi_positive": True, "caption_mixing": 0.5}, "multi_positive and caption_mixing (0.5): all captions"),
    ({"micro_batch_size": 64, "batch_size": 32}, "micro_batch_size (64) is more than batch_size (32)"),
    ({"devices": "cuda", "processes": 2}, "processes (2) is more than the 1 of devices = 'cuda'"),
    ({"devices": "cuda:0,1", "processes": 3}, "processes (3) is more than the 2 of devices = 'cuda:0,1'"),
    ({"devices": "cuda:1,1"}, "devices = 'cuda:1,1' names a GPU twice"),
    ({"processes": 8, "batch_size": 4}, "processes (8) is more than batch_size (4)"),
    ({"retention_data": "other", "val_data": "other"}, "retention_data = 'other' is also train_data, eval_data or val_data"),
    ({"val_data": "shapes"}, "val_data and train_data are both 'shapes': weights are not chosen by what they learnt from"),
    ({"val_data": "other", "eval_data": "other"}, "val_data and eval_data are both 'other': weights that were chosen on it"),
    ({"val_data": "other", "val_split": 0.1}, "val_data ('other') and val_split (0.1) are two answers to one question"),
    (
        {"train_data": None, "eval_data": "other", "val_data": "third"},
        "nothing is trained without train_data: leave out val_data, or give train_data",
    ),
]


@pytest.mark.parametrize(("changes", "said"), CONTRADICTIONS)
def test_settings_that_clash_are_refused_with_their_names(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings({**NEEDED, **changes})

    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"- {said}")


@pytest.mark.parametrize(
    "changes",
    [
        {"retention_data": "other", "eval_data": "third"},
        {"retention_data": "other", "eval_data": "third", "val_data": "fourth"},
        {"val_data": "other", "eval_split": 0.85},
        {"train_data": None, "eval_data": "other"},
        {"train_data": None, "eval_data": "other", "baseline": "ViT-B-32#openai", "devices": "cpu", "seed": 3},
        {"lock_image": True, "lora_rank": 4},
        {"lora_rank": 0, "train_last_blocks": 2},
        {"multi_positive": True, "caption_mixing": 0},
        {"micro_batch_size": 32, "batch_size": 32},
        {"micro_batch_size": 32, "batch_size": "auto"},
        {"devices": "cuda:0,1", "processes": 2},
        {"devices": "cuda:0,1", "processes": "auto"},
        {"devices": "cpu", "processes": 4},
        {"devices": "auto", "processes": 4},
    ],
)
def test_settings_that_go_together_are_let_through(changes: dict[str, object]) -> None:
    assert check_settings({**NEEDED, **changes})


def test_all_clashes_come_together() -> None:
    changes: dict[str, object] = {}
    for some, _ in (CONTRADICTIONS[number] for number in (3, 6, 8, 9, 10)):
        changes |= some

    with pytest.raises(SettingsError) as caught:
        check_settings({**NEEDED, **changes})

    assert len(str(caught.value).splitlines()) == 1 + 5


def test_a_run_trains_if_it_has_training_data() -> None:
    assert check_settings(NEEDED).trains
    assert not check_settings({"model": "starter", "eval_data": "other"}).trains


def test_what_an_evaluation_uses_are_settings() -> None:
    assert FinetuningSettings.model_fields.keys() >= EVALUATION


@pytest.mark.parametrize(
    ("given", "encoders"),
    [
        ({}, ("clip-text", "clip-vision")),
        ({"model": "clip-vision"}, ("clip-vision", "clip-text")),
        ({"index_model": "clip-text"}, ("clip-vision", "clip-text")),
        ({"index_model": "clip-vision"}, ("clip-text", "clip-vision")),
        ({"model": "clip-text", "index_model": "clip-text"}, ("clip-text", "clip-text")),
        ({"model": "clip-vision", "index_model": "clip-vision", "exclude_self": True}, ("clip-vision", "clip-vision")),
    ],
)
def test_a_callback_asks_one_tower_for_what_the_other_embeds(given: dict[str, object], encoders: tuple[str, str]) -> None:
    [callback] = check_settings({**NEEDED, "callbacks": [{"query_data": "shapes", **given}]}).callbacks

    assert callback.encoders == encoders
    assert callback.limit == 20


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        ({}, "callbacks[1].query_data is missing: Name of a pushed dataset"),
        ({"query_data": "a b"}, "callbacks[1].query_data = 'a b' is not a valid name"),
        ({"query_data": "a", "limt": 3}, "callbacks[1].limt = 3: there is no such setting (did you mean 'limit'?)"),
        ({"query_data": "a", "limit": 0}, "callbacks[1].limit = 0: input should be greater than or equal to 1"),
        (
            {"query_data": "a", "kind": "wand"},
            "callbacks[1].kind = 'wand': there is no such callback (did you mean 'wandb'?). Use one",
        ),
        (
            {"kind": ["wandb"]},
            "callbacks[1].kind = ['wandb']: there is no such callback. Use one of: evaluation, early_stopping",
        ),
        (
            {"kind": "early_stopping", "monitor": "val_los"},
            "callbacks[1].monitor = 'val_los' is not known (did you mean 'val_loss'?)",
        ),
        (
            {"kind": "early_stopping", "mode": "max"},
            "callbacks[1] = {'kind': 'early_stopping', 'mode': 'max'} has mode = 'max', but the smaller val_loss is the",
        ),
        (
            {"kind": "early_stopping", "patienc": 3},
            "callbacks[1].patienc = 3: there is no such setting (did you mean 'patience'?)",
        ),
        (
            {"kind": "best_model_checkpoint", "monitor": "train_loss"},
            "callbacks[1].monitor = 'train_loss' is of the weights while",
        ),
        ({"kind": "training_checkpoint", "last_k_epochs": 0}, "callbacks[1].last_k_epochs = 0: input should be greater"),
        ({"kind": "wise_ft", "alpha": 1.5}, "callbacks[1].alpha = 1.5: input should be less than or equal to 1"),
        ({"kind": "tensorboard", "log_dir": "../up"}, "callbacks[1].log_dir = '../up' is not a valid name"),
        ({"kind": "tensorboard", "log_dir": "mlflow"}, "callbacks[1].log_dir = 'mlflow' is where another logger writes"),
        ({"kind": "mlflow", "tracking_uri": "file:///etc"}, "callbacks[1].tracking_uri = 'file:///etc' is no web address"),
        ({"kind": "mlflow", "tracking_uri": "http://h:a"}, "callbacks[1].tracking_uri = 'http://h:a' is no web address"),
        (
            {"kind": "mlflow", "tracking_uri": "http://a:b@h"},
            "callbacks[1].tracking_uri = 'http://a:b@h' holds more than an address. Names, passwords and tokens belong",
        ),
        ({"kind": "mlflow", "tags": {"mlflow.user": "x"}}, "callbacks[1].tags = {'mlflow.user': 'x'} has 'mlflow.user'"),
        ({"kind": "mlflow", "tags": {"a": 1}}, "callbacks[1].tags.a = 1: input should be a valid string"),
        ({"kind": "wandb", "project": "a/b"}, "callbacks[1].project = 'a/b' has /, which Weights & Biases does not take"),
        ({"kind": "own", "name": "__import__('os')"}, "callbacks[1].name = \"__import__('os')\": string should match"),
        ({"query_data": "a", "distance": "l2"}, "callbacks[1].distance = 'l2' is not known. CLIP is trained on cosine"),
        (
            {"query_data": "a", "exclude_self": True},
            "callbacks[1] = {'query_data': 'a', 'exclude_self': True} has exclude_self",
        ),
        (
            {"query_data": "a", "index_data": "b", "model": "clip-text", "index_model": "clip-text", "exclude_self": True},
            "callbacks[1] = {",
        ),
        ("shapes", "callbacks[1] = 'shapes': input should be a valid dictionary"),
    ],
)
def test_a_callback_that_cannot_be_is_named_by_its_place(callback: object, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings({**NEEDED, "callbacks": [{"query_data": "shapes"}, callback]})

    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"- {said}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"callbacks": [{"kind": "wise_ft"}, {"kind": "wise_ft"}]},
            "callbacks: 2 are of the kind 'wise_ft', and a run has one",
        ),
        (
            {"early_stopping_patience": 3, "callbacks": [{"kind": "early_stopping"}]},
            "early_stopping_patience (3) and the patience of EarlyStopping (2) are two answers to one question",
        ),
        (
            {"interpolation": False, "callbacks": [{"kind": "wise_ft"}]},
            "interpolation = False and WiSEFTCallback: the one wants",
        ),
    ],
)
def test_callbacks_that_contradict_other_settings_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings({**NEEDED, **given})
    assert f"- {said}" in str(caught.value)


def test_a_run_may_have_one_callback_of_each_kind_and_several_that_only_look() -> None:
    callbacks = [*({"kind": kind} for kind in KINDS if kind not in ("evaluation", "own")), *OFTEN, *OFTEN]

    checked = check_settings({**NEEDED, "early_stopping_patience": 2, "callbacks": callbacks})

    assert [callback.kind for callback in checked.callbacks] == [kind_of(one) for one in callbacks]
    assert [one.query_data for one in checked.evaluations] == ["shapes", "shapes"]
    assert (
        check_settings(checked.model_dump(mode="json", exclude={"early_stopping_patience"})).callbacks == checked.callbacks
    )


OFTEN = [{"query_data": "shapes"}, {"kind": "own", "name": "a.b"}]


def test_callbacks_are_a_list() -> None:
    with pytest.raises(SettingsError, match=r"\n- callbacks = \{'query_data': 'shapes'\}: give a list of callbacks\. "):
        check_settings({**NEEDED, "callbacks": {"query_data": "shapes"}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "Adm"}, "optimizer = 'Adm' is not known (did you mean 'Adam'?). Use one of: AdamW, Adam, "),
        (
            {"optimizer": "Muon"},
            "optimizer = 'Muon' takes matrices alone, and models have vectors as well. Use one of: AdamW",
        ),
        ({"optimizer": "SGD"}, "optimizer = 'SGD' has no automatic learning rate"),
        (
            {"optimizer": "Rprop", "learning_rate": 1, "weight_decay": 0.1},
            "weight_decay = 0.1: Rprop has none. Leave it out",
        ),
        (
            {"layer_wise_lr_decay": 0.9, "optimizer_options": {"layer_wise_lr_decay": 0.8}},
            "layer_wise_lr_decay is 0.9, and 0.8 in optimizer_options. Give it once",
        ),
        (
            {"scheduler_options": {"powr": 2}},
            "scheduler_options.powr = 2: there is no such setting (did you mean 'power'?)",
        ),
        (
            {"scheduler_options": {"power": 0}},
            "scheduler_options.power = 0: input should be greater than 0. Of",
        ),
        ({"model_options": {"image_sice": 64}}, "model_options.image_sice = 64: there is no such setting (did you mean 'im"),
        ({"model_options": {"image_size": 3}}, "model_options.image_size = 3: input should be greater than or equal to 8"),
        ({"model_options": {"matryoshka_dims": 64}}, "model_options.matryoshka_dims = 64: give a list of matryoshka_dims"),
        ({"model_options": {"matryoshka_dims": [64, 64]}}, "model_options.matryoshka_dims = [64, 64] names a length twice"),
        ({"model_options": {"matryoshka_dims": [64], "output_dim": 64}}, "matryoshka_dims: 64 is not below output_dim (64)"),
        ({"scheduler_options": {"scheduler_step": "year"}}, "scheduler_options.scheduler_step = 'year': input should be"),
        ({"scheduler_options": {"power": 2}}, "scheduler_options.power = 2 is for polynomial, not for 'cosine'"),
        (
            {"scheduler_options": {"num_cycles": 2}, "scheduler": "linear"},
            "scheduler_options.num_cycles = 2 is for cosine and cosine_with_restarts, not for 'linear'",
        ),
        (
            {"scheduler_options": {"num_warmup_steps": 5}, "warmup_ratio": 0.1},
            "warmup_ratio (0.1) and scheduler_options.num_warmup_steps (5) are two answers to one question",
        ),
        ({"scheduler_options": {"num_warmup_steps": 5}, "scheduler": "constant"}, "Use constant_with_warmup"),
    ],
)
def test_optimizers_and_schedulers_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_settings({**NEEDED, **settings})
    assert said in str(refused.value)


def test_finetuners_place_for_the_decay_by_layer_is_understood() -> None:
    settings = check_settings({**NEEDED, "optimizer_options": {"layer_wise_lr_decay": 0.8, "eps": 1e-7}})
    assert (settings.layer_wise_lr_decay, settings.optimizer_options) == (0.8, {"eps": 1e-7})
    with pytest.raises(SettingsError, match="layer_wise_lr_decay = 2"):
        check_settings({**NEEDED, "optimizer_options": {"layer_wise_lr_decay": 2}})


def test_what_is_changed_of_a_scheduler_is_a_changed_setting() -> None:
    plain, changed = (
        check_settings({**NEEDED, "scheduler": "polynomial", **given}).model_dump(mode="json")
        for given in ({}, {"scheduler_options": {"power": 3}})
    )
    assert changed_settings(plain) == {**NEEDED, "scheduler": "polynomial"}
    assert changed_settings(changed)["scheduler_options"]["power"] == 3
