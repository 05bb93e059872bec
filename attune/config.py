"""Checks a run's settings as a whole: everything wrong with them, in one error."""

import json
from collections import Counter
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from attune.callback_settings import KINDS, kind_of
from attune.choices import did_you_mean
from attune.errors import SettingsError
from attune.finetuner import HINTS
from attune.idle import IDLE, idle
from attune.losses.table import ALIASES, LOSSES, kinds_of
from attune.optimizers import OPTIMIZERS
from attune.settings import EVALUATION, FinetuningSettings, ModelOptions, SchedulerOptions

LONGEST_TEXT = 4096
"""Characters of a setting: the longest path that Linux knows."""

MOST_SETTINGS = 500
_REFUSED = "The settings cannot be used:"

_NESTED: dict[str, type[BaseModel]] = {"scheduler_options": SchedulerOptions, "model_options": ModelOptions}

SETTINGS = tuple(FinetuningSettings.model_fields)
"""The names of all settings, in the order of their table."""


def check_settings(raw: dict[str, Any]) -> FinetuningSettings:
    """Settings from what a user gave, or one error that lists everything wrong with them.

    Args:
        raw: field names and values.

    Raises:
        SettingsError: one line per problem, with the field, the value found and what to do.
    """
    problems = [
        f"{name[:100]!r} is nested too deeply, too long a text or too large a number"
        for name, value in raw.items()
        if len(name) > 100 or not _is_plain(value)
    ]
    if problems or len(raw) > MOST_SETTINGS:  # nothing else looks at these: even to show them may take too much
        raise SettingsError(f"{_REFUSED}\n- " + "\n- ".join(problems[:20] or [f"{len(raw)} are too many"]))
    settings = None
    if raw.get("model_artifact") is not None and raw.get("model") is None:
        raw = {**raw, "model": raw["model_artifact"]}
    raw, clash = _layer_wise_lr_decay(raw)
    problems += clash
    try:
        settings = FinetuningSettings.model_validate(raw)
    except ValidationError as error:
        problems += [_describe(item) for item in _one_each(error)]
    problems += _contradictions(raw)
    if settings is not None:  # what is no setting at all does nothing either
        problems += [said for name, said in idle(IDLE, settings).items() if settings.trains or name in EVALUATION]
    if problems or settings is None:
        raise SettingsError("\n".join([_REFUSED, *(f"- {problem}" for problem in problems)]))
    return settings


def _layer_wise_lr_decay(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Takes it out of `optimizer_options`, where Finetuner's users have it; and what is wrong with that."""
    name, options = "layer_wise_lr_decay", raw.get("optimizer_options")
    if not isinstance(options, dict) or name not in options:
        return raw, []
    inside, outside = options[name], raw.get(name)
    raw = {**raw, name: inside, "optimizer_options": {key: value for key, value in options.items() if key != name}}
    if outside is None or outside == inside:
        return raw, []
    return raw, [f"{name} is {outside!r}, and {inside!r} in optimizer_options. Give it once"]


def _is_plain(value: Any, levels: int = 6) -> bool:
    """Whether a value is of a size that some setting could have."""
    if isinstance(value, dict | list | tuple):
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return levels > 0 and len(inner) <= MOST_SETTINGS and all(_is_plain(one, levels - 1) for one in inner)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return not isinstance(value, int) or value.bit_length() < 64


def _contradictions(raw: dict[str, Any]) -> list[str]:
    """Settings that are each fine and clash together. Works on raw values, beside the field checks."""
    return [*_model_contradictions(raw), *_data_contradictions(raw), *_training_contradictions(raw)]


def _model_contradictions(raw: dict[str, Any]) -> list[str]:
    found = []
    model, artifact = raw.get("model"), raw.get("model_artifact")
    if artifact is not None and model != artifact:
        found.append(
            f"model ({model!r}) and model_artifact ({artifact!r}) are two models to begin with. Give model_artifact "
            "alone to train on from that run, or model alone"
        )
    if raw.get("continue_optimizer") and raw.get("lora_rank"):
        found.append(
            f"continue_optimizer and lora_rank ({raw['lora_rank']!r}): low-rank changes begin anew in every run, so "
            "there is no optimizer state of theirs to go on with. Set continue_optimizer to false"
        )
    options = raw.get("model_options")
    if not isinstance(options, dict):
        return found
    width, dims = options.get("output_dim"), options.get("matryoshka_dims")
    if isinstance(width, int) and isinstance(dims, list | tuple):
        found += [
            f"model_options.matryoshka_dims: {dim} is not below output_dim ({width}). Name lengths below it, or leave it out"
            for dim in dims
            if isinstance(dim, int) and dim >= width
        ]
    return found


def _data_contradictions(raw: dict[str, Any]) -> list[str]:
    if raw.get("train_data") is None:
        return _evaluation_contradictions(raw)
    found = []
    if raw.get("baseline") is not None:
        found.append(
            f"baseline = {raw['baseline']!r} is for runs that train nothing: one that trains is compared with its start. "
            "Leave it out, or leave out train_data"
        )
    if raw.get("eval_data") is not None and raw.get("eval_data") == raw.get("train_data"):
        found.append(
            f"eval_data and train_data are both {raw['eval_data']!r}: a model is not measured on what it learnt from. "
            "Push a separate dataset, or leave eval_data out to hold out a part of train_data"
        )
    if raw.get("eval_data") is not None and raw.get("eval_split") is not None:
        found.append(
            f"eval_data ({raw['eval_data']!r}) and eval_split ({raw['eval_split']!r}) are two answers to one question. "
            "Give eval_data alone to measure on it, or eval_split alone to hold out a part of train_data"
        )
    found += _validation_contradictions(raw)
    others = [raw.get(name) for name in ("train_data", "eval_data", "val_data")]
    if raw.get("retention_data") is not None and raw["retention_data"] in others:
        found.append(
            f"retention_data = {raw['retention_data']!r} is also train_data, eval_data or val_data: it is for other data "
            "that the model must stay good at. Push that as a dataset of its own"
        )
    held_out = [0.0 if raw.get(f"{part}_data") else _number(raw, f"{part}_split", 0.1) for part in ("eval", "val")]
    if sum(held_out) > 0.9:
        found.append(
            f"eval_split ({held_out[0]:g}) and val_split ({held_out[1]:g}) leave less than a tenth of the data to "
            "train on. Lower one of them"
        )
    return found


def _validation_contradictions(raw: dict[str, Any]) -> list[str]:
    data, found = raw.get("val_data"), []
    if data is None:
        return []
    if data == raw.get("train_data"):
        found.append(
            f"val_data and train_data are both {data!r}: weights are not chosen by what they learnt from. Push a separate "
            "dataset, or leave val_data out to set a part of train_data aside"
        )
    if data == raw.get("eval_data"):
        found.append(
            f"val_data and eval_data are both {data!r}: weights that were chosen on it would be measured on it. Push "
            "separate datasets, or leave val_data out to set a part of train_data aside"
        )
    if raw.get("val_split") is not None:
        found.append(
            f"val_data ({data!r}) and val_split ({raw['val_split']!r}) are two answers to one question. Give val_data alone "
            "to choose the weights on it, or val_split alone to set a part of train_data aside"
        )
    return found


def _evaluation_contradictions(raw: dict[str, Any]) -> list[str]:
    if raw.get("eval_data") is None:
        return ["train_data is missing: give it to train, or eval_data alone to measure the model as it is"]
    needless = [name for name in FinetuningSettings.model_fields if raw.get(name) is not None and name not in EVALUATION]
    if not needless:
        return []
    return [f"nothing is trained without train_data: leave out {', '.join(needless)}, or give train_data"]


def _training_contradictions(raw: dict[str, Any]) -> list[str]:
    found = []
    lora, last = raw.get("lora_rank"), raw.get("train_last_blocks")
    if raw.get("lock_image") and raw.get("lock_text"):
        what = f"lora_rank = {lora!r} has no tower to change" if lora else "there is nothing to train"
        found.append(f"lock_image and lock_text are both true: {what}. Set one of them to false")
    if lora and last is not None:
        found.append(
            f"lora_rank ({lora!r}) and train_last_blocks ({last!r}) are two ways to train little of a model. Give one"
        )
    if raw.get("multi_positive") and raw.get("caption_mixing"):
        found.append(
            f"multi_positive and caption_mixing ({raw['caption_mixing']!r}): all captions of a picture are in the batch "
            "already. Set caption_mixing to 0, or multi_positive to false"
        )
    found += _loss_contradictions(raw)
    found += _callback_contradictions(raw)
    found += _schedule_contradictions(raw)
    micro, batch = raw.get("micro_batch_size"), raw.get("batch_size")
    if isinstance(micro, int) and isinstance(batch, int) and micro > batch:
        found.append(f"micro_batch_size ({micro}) is more than batch_size ({batch}). Lower it, or leave it out")
    devices, processes = raw.get("devices"), raw.get("processes")
    numbers = devices.partition(":")[2].split(",") if isinstance(devices, str) else []
    if len(numbers) > len(set(numbers)):
        found.append(f"devices = {devices!r} names a GPU twice. Name each once: every one gets a process of its own")
    if isinstance(processes, int) and isinstance(batch, int) and processes > batch:
        found.append(f"processes ({processes}) is more than batch_size ({batch}): some would have nothing to do. Lower it")
    if isinstance(devices, str) and devices.startswith("cuda") and isinstance(processes, int) and processes > len(numbers):
        found.append(
            f"processes ({processes}) is more than the {len(numbers)} of devices = {devices!r}. Name a GPU for each "
            "process, as in cuda:0,1, or lower processes"
        )
    return found


def _loss_contradictions(raw: dict[str, Any]) -> list[str]:
    found = []
    name, miner = raw.get("loss") or "auto", raw.get("miner")
    options = raw.get("loss_options")
    kinds = kinds_of(ALIASES.get(name, name), options if isinstance(options, dict) else {}) if isinstance(name, str) else []
    if miner is not None and (name == "auto" or (kinds and not any(kind.picks for kind in kinds))):
        pickers = ", ".join(loss for loss, other in LOSSES.items() if other.picks)
        found.append(
            f"miner = {miner!r}: loss = {name!r} looks at all of a batch, so there is nothing to choose. Leave miner out, "
            f"or use one of: {pickers}"
        )
    if raw.get("miner_options") and miner is None:
        found.append("miner_options are given, and no miner. Name one, or leave them out")
    if raw.get("loss_options") and name == "auto":
        found.append("loss_options are given, and loss is 'auto'. Name the loss that they are for")
    if raw.get("sampler") in ("class", "hard-batch") and raw.get("hard_negatives"):
        found.append(
            f"sampler = {raw['sampler']!r} and hard_negatives ({raw['hard_negatives']!r}) are two ways to choose which "
            "pictures meet. Set hard_negatives to 0, or sampler to random"
        )
    if raw.get("sampler") == "class" and raw.get("images_per_epoch"):
        found.append("sampler = 'class' passes over all pictures. Leave images_per_epoch out, or set sampler to random")
    if any(kind.one_each for kind in kinds) and raw.get("multi_positive"):
        found.append(f"loss = {name!r} takes one caption a picture. Set multi_positive to false, or use another loss")
    return found


def _callback_contradictions(raw: dict[str, Any]) -> list[str]:
    given = raw.get("callbacks")
    callbacks = [one for one in given if isinstance(one, dict)] if isinstance(given, list | tuple) else []
    found = []
    for kind, count in Counter(map(kind_of, callbacks)).items():
        if kind is not None and count > 1 and not KINDS[kind].many:
            found.append(f"callbacks: {count} are of the kind {kind!r}, and a run has one. Leave out the others")
    patience = raw.get("early_stopping_patience")
    for callback in callbacks:
        kind, its_own = kind_of(callback), callback.get("patience", 2)
        if kind == "early_stopping" and patience is not None and patience != its_own:
            found.append(
                f"early_stopping_patience ({patience!r}) and the patience of EarlyStopping ({its_own!r}) are two answers to "
                "one question. Give one"
            )
        if kind == "wise_ft" and raw.get("interpolation") is False:
            found.append(
                "interpolation = False and WiSEFTCallback: the one wants no weights between the start's and the best ones, "
                "the other does. Leave one out"
            )
    return found


def _schedule_contradictions(raw: dict[str, Any]) -> list[str]:
    found = []
    optimizer = raw.get("optimizer", "AdamW")
    kind = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else None
    if kind and not kind.adam_like and raw.get("learning_rate", "auto") in (None, "auto"):
        alike = ", ".join(name for name, other in OPTIMIZERS.items() if other.adam_like)
        found.append(
            f"optimizer = {optimizer!r} has no automatic learning rate: its steps follow other rules than those of {alike}. "
            "Give learning_rate"
        )
    if kind and kind.weight_decay is None and raw.get("weight_decay", "auto") not in (None, "auto", 0):
        found.append(f"weight_decay = {raw['weight_decay']!r}: {optimizer} has none. Leave it out")
    options = raw.get("scheduler_options")
    if not isinstance(options, dict):
        return found
    scheduler = raw.get("scheduler") or "cosine"
    for name, users in (("num_cycles", ("cosine", "cosine_with_restarts")), ("power", ("polynomial",))):
        if options.get(name) is not None and scheduler not in users:
            found.append(f"scheduler_options.{name} = {options[name]!r} is for {' and '.join(users)}, not for {scheduler!r}")
    if options.get("num_warmup_steps") is not None and raw.get("warmup_ratio") is not None:
        found.append(
            f"warmup_ratio ({raw['warmup_ratio']!r}) and scheduler_options.num_warmup_steps "
            f"({options['num_warmup_steps']!r}) are two answers to one question. Give one"
        )
    if options.get("num_warmup_steps") and scheduler == "constant":
        found.append(
            "scheduler = 'constant' has no warm-up, and scheduler_options.num_warmup_steps asks for one. "
            "Use constant_with_warmup"
        )
    return found


def _number(raw: dict[str, Any], field: str, default: float) -> float:
    value = raw.get(field)
    return float(value) if isinstance(value, int | float) else default


def _one_each(error: ValidationError) -> list[Any]:
    """The first problem of each field: one that takes a number or `auto` has a second problem, that it is not `auto`."""
    first: dict[str, Any] = {}
    for item in error.errors():
        first.setdefault(_place(item)[0], item)
    return list(first.values())


def _place(error: Any) -> tuple[str, str, type[BaseModel]]:
    """Where a problem is, as people write it (`callbacks[0].limit`); the name of the field, and whose field it is."""
    field, *inside = map(str, error["loc"])
    if field in _NESTED and inside:
        return f"{field}.{inside[0]}", inside[0], _NESTED[field]
    if field != "callbacks" or not inside:
        return field, field, FinetuningSettings
    number, kind, *names = (*inside, "")
    names = [name for name in names if name]
    if not names:
        return f"callbacks[{number}]", field, FinetuningSettings
    return f"callbacks[{number}].{'.'.join(names)}", names[0], KINDS[kind]


def _describe(error: Any) -> str:
    """One line for one pydantic error: field, value found, what to do."""
    place, field, model = _place(error)
    fields = model.model_fields
    description = fields[field].description if field in fields else ""
    if error["type"] == "extra_forbidden":
        return f"{place} = {error['input']!r}: there is no such setting{_instead(field, model)}"
    if error["type"] == "missing":
        return f"{place} is missing: {description}"
    if error["type"] == "tuple_type":
        return f"{place} = {repr(error['input'])[:200]}: give a list of {field}. {description}"
    if error["type"] == "union_tag_not_found":
        return _unknown_kind(place, error["input"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place} = {error['input']!r} {message}"
    return f"{place} = {error['input']!r}: {message[0].lower()}{message[1:]}. {description}"


def _instead(field: str, model: type[BaseModel]) -> str:
    """What to do instead of a setting that there is not."""
    if model is FinetuningSettings and field in HINTS:
        return f": {HINTS[field]}"
    if model is FinetuningSettings and (
        holder := next((name for name, of in _NESTED.items() if field in of.model_fields), "")
    ):
        return f": give it in {holder}, as {{{field!r}: ...}}"
    near = did_you_mean(field, model.model_fields, most=3)
    if near and model is FinetuningSettings:
        return f"{near}. All are in docs/settings.md"
    return near or f". The settings are: {', '.join(model.model_fields)}"


def _unknown_kind(place: str, callback: dict[str, Any]) -> str:
    kind = callback.get("kind")
    hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
    return f"{place}.kind = {repr(kind)[:200]}: there is no such callback{hint}. Use one of: {', '.join(KINDS)}"


def changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that are not at their default, in the order of the settings' table."""
    fields = FinetuningSettings.model_fields
    unknown = {name: value for name, value in settings.items() if name not in fields}  # of another version
    known = {name: settings[name] for name in fields if settings.get(name) is not None}
    changed = {name: value for name, value in known.items() if json.dumps(value) != _default(fields[name])}
    return {**changed, **unknown}


def _default(field: FieldInfo) -> str:
    """As JSON."""
    default = field.get_default(call_default_factory=True)
    return json.dumps(default, default=lambda value: value.model_dump() if isinstance(value, BaseModel) else str(value))
