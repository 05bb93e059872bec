"""The settings of a run: one sentence with its unit per field. `attune.config` checks them as a whole."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from attune.callback_settings import Callback, EvaluationCallback
from attune.choices import one_of
from attune.losses.table import LOSSES, MINERS, check_loss, check_miner
from attune.names import check_name
from attune.optimizers import OPTIMIZERS, check_optimizer

SCHEDULERS = ("cosine", "cosine_with_restarts", "linear", "polynomial", "constant", "constant_with_warmup")
EVALUATION = frozenset({"model", "eval_data", "baseline", "prompt_templates", "devices", "seed"})
"""The settings that matter to a run that only evaluates."""

Auto = Literal["auto"]
_Kind = TypeVar("_Kind", bound=BaseModel)


class SchedulerOptions(BaseModel):
    """What may be changed of a scheduler. Names are Hugging Face's and Jina Finetuner's."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num_warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Steps over which the learning rate rises from 0, instead of `warmup_ratio`."
    )
    num_training_steps: Annotated[int, Field(ge=1)] | Auto = Field(
        default="auto", description="Steps after which the rate stays as it is; `auto` is the whole run."
    )
    num_cycles: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Waves of `cosine` (0.5 if it is left out), or runs of `cosine_with_restarts` (2)."
    )
    power: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="Of `polynomial` (2 if it is left out)."
    )
    scheduler_step: Literal["batch", "epoch"] = Field(
        default="batch", description="After warm-up the rate changes with every step, or only with every epoch."
    )


Dimension = Annotated[int, Field(ge=1, le=8192)]


class ModelOptions(BaseModel):
    """What of a model is to be other than it comes. All of it but `gradient_checkpointing` stays so in the artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        default=None, description="Side in pixels of the pictures it takes; a multiple of its patches."
    )
    context_length: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        default=None, description="Tokens of a text that it reads at most."
    )
    output_dim: Annotated[Dimension, Field(ge=2)] | None = Field(
        default=None,
        description="Numbers in an embedding: a CLIP's two projections are replaced by narrower or wider ones, another "
        "model gets a projection.",
    )
    matryoshka_dims: tuple[Dimension, ...] = Field(
        default=(), description="Lengths below its own at which the first numbers of an embedding are to be good ones too."
    )
    pooler: Literal["mean", "max", "cls", "last", "gem"] | None = Field(
        default=None,
        description="How a text encoder or an image model of timm's makes one embedding of many; a CLIP keeps its own way.",
    )
    input_dim: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None, description="Numbers in the embeddings that an `mlp` takes; without it, as many as those of the data."
    )
    hidden_sizes: Annotated[tuple[Dimension, ...], Field(max_length=16)] | None = Field(
        default=None, description="Width of each hidden layer of an `mlp`; of none it is a linear map."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Chance (0-1) that a hidden unit of an `mlp` is left out in training."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations a second time instead of keeping them: less memory, more time."
    )

    @field_validator("matryoshka_dims")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a length twice. Name each once")
        return tuple(sorted(value))


class FinetuningSettings(BaseModel):
    """Everything that decides what a run does. Immutable once built; `attune.config.check_settings` builds it.

    Names follow Jina Finetuner where it had one, open_clip for locked towers, and Hugging Face `TrainingArguments`
    otherwise. What is `auto` is decided by `attune.training.recipe` and recorded in the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(
        min_length=1,
        description="`starter`, `name#weights` (any open_clip pair such as `ViT-B-32#openai`), `name#scratch`, "
        "`name#path/to/checkpoint`, `timm/name.tag` (an image model of timm's), `mlp` (for given embeddings), "
        "a folder (an Attune artifact or any that open_clip, timm, sentence-transformers or transformers opens), a text "
        "encoder of the Hugging Face hub (`bert-base-cased`, `owner/name`), or a finished run's name.",
    )
    model_artifact: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A finished run, `name` or `experiment/name`, whose model is trained further: the same as its "
        "name in `model`.",
    )
    model_options: ModelOptions = Field(
        default=ModelOptions(),
        description=f"What of the model is to be other: {', '.join(f'`{name}`' for name in ModelOptions.model_fields)}.",
    )
    continue_optimizer: bool = Field(
        default=False,
        description="Go on with the optimizer's state of the run that `model` comes from as well: its moments and counts of "
        "steps. Takes the same trained weights; warm-up and learning rate begin anew.",
    )
    train_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset to train on; without it nothing is trained, and `model` is measured as it is.",
    )
    eval_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset on which before and after are measured; without it, `eval_split` is used.",
    )
    val_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset on which the weights are chosen; without it, `val_split` is used.",
    )
    baseline: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Another model, named as `model` is, to compare with in a run without `train_data`; a run that trains "
        "is compared with its start.",
    )
    prompt_templates: str = Field(
        default="openai",
        min_length=1,
        description="Sentences that class names are put in, to tell labelled pictures apart with nothing trained: `openai` "
        "(seven), `simple` (one), or the path, on the service's machine, of a text file with a sentence a line, such as "
        "`a photo of a {c}.`.",
    )
    eval_split: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Fraction (0-1) of the training data's groups held out for before and after, if no `eval_data`.",
    )
    val_split: Annotated[float, Field(gt=0, lt=1)] | Auto = Field(
        default="auto",
        description="Fraction (0-1) of the training data's groups set aside to choose the weights, if no `val_data`; `auto` "
        "is a tenth, of more than 400 groups of pairs without scores twice their square root, such as 89 of 2,000.",
    )
    retention_data: str | None = Field(
        default=None,
        description="Name of a pushed dataset the model must stay good at: weights that lose more than "
        "`retention_max_drop` on it are not chosen.",
    )
    retention_max_drop: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The most that mean recall (0-1) on `retention_data` may fall; the correlation, or MAP@R, where that "
        "chooses the weights.",
    )

    loss: Auto | str = Field(
        default="auto",
        description=f"Training loss, one of: {', '.join(LOSSES)}; `auto` takes the one the model was pre-trained "
        "with, CoSENTLoss where captions have scores, and of single items TripletMarginLoss where they have labels, else "
        "SimCSELoss. The others have the names of pytorch-metric-learning's, and "
        "those that compare pairs are taken in both directions.",
    )
    loss_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Its options, by the names of its library: `{'margin': 0.1, 'distance': 'CosineSimilarity'}`; parts of "
        "it with options of their own as `{'reducer': {'name': 'ThresholdReducer', 'low': 0}}`. `CLIPLoss` has "
        "`label_smoothing`, the losses with a scale of their own have `scale`.",
    )
    miner: str | None = Field(
        default=None,
        description=f"Chooses the pairs or triplets of a batch that the loss looks at, one of: {', '.join(MINERS)}; without "
        "one, it looks at all.",
    )
    miner_options: dict[str, Any] = Field(
        default_factory=dict, description="Its options: `{'margin': 0.2, 'type_of_triplets': 'semihard'}`."
    )
    optimizer: str = Field(default="AdamW", description=f"Optimizer of torch, one of: {', '.join(OPTIMIZERS)}.")
    optimizer_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Its other options, by torch's names: `{'betas': [0.9, 0.99]}`. `layer_wise_lr_decay` may be among "
        "them.",
    )
    loss_optimizer: str = Field(
        default="AdamW",
        description="Optimizer of the loss's own weights, such as a direction for each class, if it has any.",
    )
    loss_optimizer_options: dict[str, Any] = Field(default_factory=dict, description="Its options, as `optimizer_options`.")
    loss_learning_rate: float = Field(
        default=0.01, gt=0, le=10, description="Peak learning rate of the loss's own weights; it follows the scheduler too."
    )
    scheduler: str = Field(
        default="cosine",
        description=f"Learning rate after warm-up, one of: {', '.join(SCHEDULERS)}; `constant` has no warm-up.",
    )
    scheduler_options: SchedulerOptions = Field(
        default=SchedulerOptions(),
        description=f"What to change of it: {', '.join(f'`{name}`' for name in SchedulerOptions.model_fields)}.",
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = Field(
        default="auto",
        description="Passes over the training images; `auto` is 5, or as many as 200 steps take, of 256 pictures each if "
        "they are new to the model, at most 40.",
    )
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | Auto = Field(
        default="auto",
        description="Pictures per optimizer step, at most one of each group but with the sampler `class`; `auto` is a "
        "quarter of the groups, a fifteenth if they are new to the model, between 16 and 256.",
    )
    sampler: Literal["auto", "random", "image-unique", "class", "hard-batch"] = Field(
        default="auto",
        description="Which pictures meet in a batch: `random` ones, each once with one of its captions (`image-unique` is "
        "another name of that) or, with `multi_positive`, all; `num_items_per_class` of each of some classes (`class`); or "
        "look-alikes, in every epoch (`hard-batch`, as `hard_negatives` in some). `auto` is `class` where labelled single "
        "items are compared, and for: "
        f"{', '.join(name for name, kind in LOSSES.items() if kind.meets)}.",
    )
    num_items_per_class: int = Field(
        default=4, ge=2, le=1024, description="Pictures of a class in a batch, if there are as many."
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="Pictures in memory at once: a smaller number needs less memory and gives the same gradients "
        "(GradCache). Without it the whole batch is tried. Whenever memory runs out it is halved; what it came to is in "
        "`training.recipe`.",
    )
    images_per_epoch: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Pictures an epoch draws at random; without it, all of them."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        default="auto",
        description="Peak learning rate; `auto` follows the model's size, the batch and how new the data is to the model: "
        "1e-5 for a ViT-B-32 with 256 pictures a step, up to ten times that if it finds right answers hardly better than "
        "by chance, 1e-3 for a `#scratch` start. It is for Adam and its kin.",
    )
    layer_wise_lr_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        default="auto",
        description="Learning rate of each layer as a factor of the one above; `auto` is 0.9, and 1 for data that is "
        "new to the model and a `#scratch` start.",
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = Field(
        default="auto",
        description="Weight decay, never on norms, biases and logit_scale; `auto` is 0.1 for AdamW and Adafactor, 0 for "
        "others, where it is a part of the gradient.",
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
        "for data that is new to the model and a `#scratch` start. It never leaves 1 to 100 (or its start).",
    )

    lock_image: bool = Field(
        default=False, description="Leave the image tower as it is (LiT); so it is where no picture is trained on."
    )
    lock_text: bool = Field(
        default=False, description="Leave the text tower as it is; so it is where no text is trained on."
    )
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
        description="Pairs whose captions or pictures are the same, or nearly so, are no negatives of each other. "
        "Single items go by their labels alone.",
    )
    hard_negatives: float = Field(
        default=0.0, ge=0, le=1, description="Fraction (0-1) of the epochs whose batches hold pictures that look alike."
    )
    augmentation: Literal["auto", "none", "light", "strong"] = Field(
        default="auto",
        description="Random changes to training pictures: `none`; `light` turns, shifts, scales and recolours a little; "
        "`strong` does more of it; `auto` is `light`, `strong` from scratch and for data that is new to the model, `none` "
        "with a locked image tower, or embeddings.",
    )
    horizontal_flip: Annotated[float, Field(ge=0, le=1)] | Auto = Field(
        default="auto",
        description="Chance (0-1) that a training picture is mirrored, if none of its captions speaks of left or right; "
        "`auto` is 0.5 for data that is new to the model, unless `augmentation` is `none`, and else 0.",
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
    self_distillation: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share (0-1) of the target of CLIPLoss that is not the right answers alone but what the running average "
        "of the weights finds in the batch; it grows from 0 over the run. 0 is none; else a step encodes all once more.",
    )
    interpolation: bool = Field(
        default=True,
        description="Also try weights between the start's and the best ones (WiSE-FT), and keep those if clearly better.",
    )
    early_stopping_patience: int = Field(
        default=10,
        ge=0,
        description="Stop after this many epochs in a row whose validation recall or MAP@R is clearly below the highest "
        "one, or no better than the start's, or whose correlation is not the highest; 0 never stops. `EarlyStopping` in "
        "`callbacks` takes its place.",
    )
    check_pairs: bool = Field(
        default=True,
        description="Before training, refuse data whose captions fit their pictures no better than other pictures. "
        "Captions with scores and single items are not looked at.",
    )

    callbacks: tuple[Callback, ...] = Field(
        default=(),
        description="What is done besides: other data looked at, when to stop, what is kept, where figures go. See "
        "`docs/training.md`.",
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
        default="auto",
        description="Processes that share each batch, one a GPU or core at most; `auto` is one for each GPU in `devices`.",
    )
    compile: bool = Field(
        default=False, description="Compile the towers with torch.compile: worth its minute on long runs on a GPU."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the split, the batches and all random changes.")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        return value if value == "auto" else check_loss(value)

    @field_validator("miner")
    @classmethod
    def _known_miner(cls, value: str | None) -> str | None:
        return value if value is None else check_miner(value)

    @field_validator("optimizer", "loss_optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return check_optimizer(value)

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        return one_of(value, SCHEDULERS)

    @field_validator("train_data", "eval_data", "val_data", "retention_data")
    @classmethod
    def _valid_name(cls, value: str | None) -> str | None:
        return value if value is None else check_name(value)

    @property
    def trains(self) -> bool:
        """Whether anything is trained; if not, `model` is measured as it is."""
        return self.train_data is not None

    @property
    def evaluations(self) -> tuple[EvaluationCallback, ...]:
        """The callbacks that look at other data."""
        return self.callbacks_of(EvaluationCallback)

    def callbacks_of(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """The callbacks of a kind, in order."""
        return tuple(callback for callback in self.callbacks if isinstance(callback, kind))

    def callback_of(self, kind: type[_Kind]) -> _Kind | None:
        """The one callback of a kind of which a run has one at most; None if it has none."""
        return next(iter(self.callbacks_of(kind)), None)

    @property
    def hard_share(self) -> float:
        """Of the epochs, those whose batches are made of look-alikes."""
        return 1.0 if self.sampler == "hard-batch" else self.hard_negatives

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
