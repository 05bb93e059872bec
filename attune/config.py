"""The settings of a fine-tuning run: one sentence with its unit per field, checked as a whole."""

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from attune.errors import SettingsError
from attune.names import check_name

LOSSES = ("CLIPLoss",)
OPTIMIZERS = ("AdamW",)
SCHEDULERS = ("cosine",)


class FinetuningSettings(BaseModel):
    """Everything that decides what a run does. Immutable once built; `check_settings` builds it.

    Names follow Jina Finetuner where it had one, and Hugging Face `TrainingArguments` otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(
        min_length=1,
        description="`starter`, `name#weights` (any open_clip pair such as `ViT-B-32#openai`), `name#scratch`, "
        "`name#path/to/checkpoint`, or a folder: an Attune artifact or any folder open_clip opens.",
    )
    train_data: str = Field(min_length=1, description="Name of a pushed dataset to train on.")
    eval_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset on which before and after are measured; without it, `eval_split` is used.",
    )
    eval_split: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Fraction (0-1) of the training data's groups held out for before and after, if no `eval_data`.",
    )
    val_split: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Fraction (0-1) of the training data's groups set aside to choose the best checkpoint.",
    )
    loss: str = Field(default="CLIPLoss", description=f"Training loss, one of: {', '.join(LOSSES)}.")
    optimizer: str = Field(default="AdamW", description=f"Optimizer, one of: {', '.join(OPTIMIZERS)}.")
    scheduler: str = Field(default="cosine", description="Learning rate after warm-up: `cosine`, down to zero.")
    epochs: int = Field(default=5, ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(
        default=256, ge=2, le=65_536, description="Pairs per optimizer step, at most one for each group of images."
    )
    learning_rate: float = Field(
        default=1e-5, gt=0, le=1, description="Peak learning rate; 1e-5 suits ViT-B models, 1e-3 a `#scratch` start."
    )
    weight_decay: float = Field(
        default=0.1, ge=0, le=10, description="AdamW weight decay; never on norms, biases and logit_scale."
    )
    warmup_ratio: float = Field(
        default=0.1, ge=0, lt=1, description="Fraction (0-1) of all steps over which the learning rate rises from 0."
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this L2 norm.")
    augmentation: Literal["none", "light", "strong"] = Field(
        default="light",
        description="Random changes to training pictures: `none`; `light` turns, shifts, scales and "
        "recolours a little; `strong` does more of it, for training from scratch.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Arithmetic of the forward pass; `auto` is bf16 on GPUs and processors that have it, else fp32. "
        "Weights, loss and optimizer stay fp32.",
    )
    artifact_precision: Literal["fp32", "fp16"] = Field(
        default="fp32", description="Weights in the artifact; `fp16` halves its size. What is measured is what is exported."
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda` or `cuda:N`."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the split, the batches and all random changes.")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        return _one_of(value, LOSSES)

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return _one_of(value, OPTIMIZERS)

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        return _one_of(value, SCHEDULERS)

    @field_validator("train_data", "eval_data")
    @classmethod
    def _valid_name(cls, value: str | None) -> str | None:
        return value if value is None else check_name(value)


def check_settings(raw: dict[str, Any]) -> FinetuningSettings:
    """Settings from what a user gave, or one error that lists everything wrong with them.

    Args:
        raw: field names and values.

    Raises:
        SettingsError: one line per problem, with the field, the value found and what to do.
    """
    problems: list[str] = []
    settings = None
    try:
        settings = FinetuningSettings.model_validate(raw)
    except ValidationError as error:
        problems += [_describe(item) for item in error.errors()]
    problems += _contradictions(raw)
    if problems or settings is None:
        raise SettingsError("\n".join(["The settings cannot be used:", *(f"- {problem}" for problem in problems)]))
    return settings


def _contradictions(raw: dict[str, Any]) -> list[str]:
    """Pairs of settings that are each fine and clash together. Works on raw values, beside the field checks."""
    found = []
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
    held_out = [0.0 if raw.get("eval_data") else _number(raw, "eval_split", 0.1), _number(raw, "val_split", 0.1)]
    if sum(held_out) > 0.9:
        found.append(
            f"eval_split ({held_out[0]:g}) and val_split ({held_out[1]:g}) leave less than a tenth of the data to "
            "train on. Lower one of them"
        )
    return found


def _number(raw: dict[str, Any], field: str, default: float) -> float:
    value = raw.get(field)
    return float(value) if isinstance(value, int | float) else default


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"is not known{_did_you_mean(value, known)}. Use one of: {', '.join(known)}")
    return value


def _did_you_mean(value: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _describe(error: Any) -> str:
    """One line for one pydantic error: field, value found, what to do."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = tuple(FinetuningSettings.model_fields)
        hint = _did_you_mean(field, known) or f". The settings are: {', '.join(known)}"
        return f"{field} = {error['input']!r}: there is no such setting{hint}"
    if error["type"] == "missing":
        return f"{field} is missing: {FinetuningSettings.model_fields[field].description}"
    message = error["msg"].removeprefix("Value error, ")
    description = FinetuningSettings.model_fields[field].description if field in FinetuningSettings.model_fields else ""
    if error["type"] == "value_error":
        return f"{field} = {error['input']!r} {message}"
    return f"{field} = {error['input']!r}: {message[0].lower()}{message[1:]}. {description}"


def settings_table() -> str:
    """All settings as a Markdown table: name, default, meaning. The README shows it."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in FinetuningSettings.model_fields.items():
        default = "required" if field.is_required() else f"`{field.default}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines)
