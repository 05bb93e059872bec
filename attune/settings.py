"""The settings of a fine-tuning run: one sentence with its unit per field. `attune.config` checks them as a whole."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from attune.choices import one_of
from attune.names import check_name

LOSSES = ("CLIPLoss", "SigLIPLoss")
OPTIMIZERS = ("AdamW",)
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup")
Auto = Literal["auto"]


class FinetuningSettings(BaseModel):
    """Everything that decides what a run does. Immutable once built; `attune.config.check_settings` builds it.

    Names follow Jina Finetuner where it had one, open_clip for locked towers, and Hugging Face `TrainingArguments`
    otherwise. What is `auto` is decided by `attune.training.recipe` and recorded in the run.
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
        description="Fraction (0-1) of the training data's groups set aside to choose the weights.",
    )
    retention_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset the model must stay good at: weights that lose more than "
        "`retention_max_drop` on it are not chosen.",
    )
    retention_max_drop: float = Field(
        default=0.01, ge=0, le=1, description="The most that mean recall (0-1) on `retention_data` may fall."
    )

    loss: Auto | str = Field(
        default="auto",
        description=f"Training loss, one of: {', '.join(LOSSES)}; `auto` takes the one the model was pre-trained with.",
    )
    optimizer: str = Field(default="AdamW", description=f"Optimizer, one of: {', '.join(OPTIMIZERS)}.")
    scheduler: str = Field(
        default="cosine",
        description=f"Learning rate after warm-up, one of: {', '.join(SCHEDULERS)}; `constant` has no warm-up.",
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = Field(
        default="auto", description="Passes over the training images; `auto` is 5, or as many as 200 steps take, at most 40."
    )
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | Auto = Field(
        default="auto",
        description="Pictures per optimizer step, at most one of each group; `auto` is a quarter of the groups, "
        "between 16 and 256.",
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="Pictures in memory at once: a smaller number needs less memory and gives the same gradients "
        "(GradCache). Without it the whole batch is tried, and halved whenever memory runs out.",
    )
    images_per_epoch: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Pictures an epoch draws at random; without it, all of them."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        default="auto",
        description="Peak learning rate; `auto` follows the model's size and the batch: 1e-5 for a ViT-B-32 with 256 "
        "pictures a step, 1e-3 for a `#scratch` start.",
    )
    layer_wise_lr_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        default="auto",
        description="Learning rate of each layer as a factor of the one above; `auto` is 0.9, and 1 for a `#scratch` start.",
    )
    weight_decay: float = Field(
        default=0.1, ge=0, le=10, description="AdamW weight decay; never on norms, biases and logit_scale."
    )
    warmup_ratio: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Fraction (0-1) of all steps over which the learning rate rises from 0; at least 20 steps (or a "
        "fifth of them all) and at most 500.",
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this L2 norm.")
    logit_scale: Literal["auto", "learned", "slow", "frozen"] = Field(
        default="auto",
        description="How the temperature learns: at the full rate, a tenth of it, or not; `auto` is `slow`, and `learned` "
        "for a `#scratch` start. It never leaves 1 to 100.",
    )

    lock_image: bool = Field(default=False, description="Leave the image tower as it is (LiT).")
    lock_text: bool = Field(default=False, description="Leave the text tower as it is.")
    train_last_blocks: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Train only this many of the last blocks of each tower, with what comes after them."
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Train low-rank changes of this rank instead of the weights; 0 trains the weights.",
    )

    multi_positive: bool = Field(
        default=False,
        description="All captions of a picture at once, instead of one each epoch, in turn.",
    )
    mask_duplicates: bool = Field(
        default=True,
        description="Pairs whose captions or pictures are the same, or nearly so, are no negatives of each other.",
    )
    hard_negatives: float = Field(
        default=0.0, ge=0, le=1, description="Fraction (0-1) of the epochs whose batches hold pictures that look alike."
    )
    augmentation: Literal["auto", "none", "light", "strong"] = Field(
        default="auto",
        description="Random changes to training pictures: `none`; `light` turns, shifts, scales and recolours a little; "
        "`strong` does more of it; `auto` is `light`, `strong` from scratch, `none` with a locked image tower.",
    )
    word_dropout: float = Field(default=0.0, ge=0, lt=1, description="Chance (0-1) that a word of a caption is left out.")
    caption_mixing: float = Field(
        default=0.0, ge=0, le=1, description="Chance (0-1) that two captions of a picture are joined into one."
    )

    ema_decay: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        default="auto",
        description="Decay of the running average of the weights, a candidate beside the weights themselves; 0 is none, "
        "`auto` averages over about a third of the run.",
    )
    interpolation: bool = Field(
        default=True, description="Also try weights between the start's and the best ones (WiSE-FT), and keep what is best."
    )
    early_stopping_patience: int = Field(
        default=10, ge=0, description="Stop after this many epochs without a better validation recall; 0 never stops."
    )
    check_pairs: bool = Field(
        default=True,
        description="Before training, refuse data whose captions fit their pictures no better than other pictures.",
    )

    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Arithmetic of the forward pass; `auto` is bf16 on GPUs and processors that have it, else fp32. "
        "Weights, loss and optimizer stay fp32.",
    )
    artifact_precision: Literal["fp32", "fp16"] = Field(
        default="fp32", description="Weights in the artifact; `fp16` halves its size. What is measured is what is exported."
    )
    devices: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+(,\d+)*)?)$",
        description="`auto`, `cpu`, `cuda` (the first GPU), or GPUs by number: `cuda:1`, `cuda:0,1`.",
    )
    processes: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        default="auto", description="Processes that share each batch; `auto` is one for each GPU named in `devices`."
    )
    compile: bool = Field(
        default=False, description="Compile the towers with torch.compile: worth its minute on long runs on a GPU."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the split, the batches and all random changes.")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        return one_of(value, ("auto", *LOSSES))

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return one_of(value, OPTIMIZERS)

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        return one_of(value, SCHEDULERS)

    @field_validator("train_data", "eval_data", "retention_data")
    @classmethod
    def _valid_name(cls, value: str | None) -> str | None:
        return value if value is None else check_name(value)

    @property
    def from_scratch(self) -> bool:
        """Whether the weights start random."""
        return self.model.endswith("#scratch")

    @property
    def gpus(self) -> list[int]:
        """Numbers of the GPUs asked for; empty for `auto` and `cpu`."""
        return gpu_numbers(self.devices)


def gpu_numbers(devices: str) -> list[int]:
    """Numbers of the GPUs that a value of `devices` names; `cuda` is the first one, `auto` and `cpu` name none."""
    name, _, numbers = devices.partition(":")
    return [int(number) for number in numbers.split(",")] if numbers else [0] * (name == "cuda")
