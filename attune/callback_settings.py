"""The settings of a run's callbacks: what is done besides training while it trains.

Names and arguments are Jina Finetuner's, where it had one. `KINDS` has them all.
"""

from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from attune.choices import one_of
from attune.kinds import ALL_DIRECTIONS
from attune.kinds import KINDS as DATA_KINDS
from attune.names import check_name

_KS = (1, 5, 10)  # as in `attune.metrics`, which takes numpy to load
MONITORS: dict[str, Literal["min", "max"]] = {
    "mean_recall": "max",
    "spearman": "max",
    "pearson": "max",
    "val_loss": "min",
    "train_loss": "min",
    **{f"{direction}_recall@{k}": "max" for direction in ALL_DIRECTIONS for k in _KS},
    **{f"{direction}_mrr": "max" for direction in ALL_DIRECTIONS},
    **{f"{direction}_median_rank": "min" for direction in ALL_DIRECTIONS},
    **{f"{kind.asked}_map@r": "max" for kind in DATA_KINDS if kind.is_single},
}
"""Figures that an epoch has, and which of two is the better one."""

Encoder = Literal["clip-text", "clip-vision"]
Mode = Literal["auto", "min", "max"]
_NOT_OF_THE_START = (
    "is of the weights while they changed, and the start has none to be compared with. Use val_loss, or another figure of "
    "the validation part"
)


class _Settings(BaseModel):
    """Of a callback."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    many: ClassVar[bool] = False
    """Whether a run may have several of the kind."""


class EvaluationCallback(_Settings):
    """One more look at the model after each epoch: how well queries find what belongs to them in an index.

    It decides nothing, so its data may overlap with what the model learns from. Names and figures are Jina Finetuner's.
    """

    many = True

    kind: Literal["evaluation"] = Field(default="evaluation", description="What it does.")
    query_data: str = Field(min_length=1, description="Name of a pushed dataset: what is looked for.")
    index_data: str | None = Field(
        default=None, description="Name of a pushed dataset: what is searched; without it, `query_data` is."
    )
    model: Encoder | None = Field(
        default=None, description="Queries are captions (`clip-text`, the default) or pictures (`clip-vision`)."
    )
    index_model: Encoder | None = Field(
        default=None, description="The index holds captions (`clip-text`) or pictures; by default what queries are not."
    )
    batch_size: int = Field(default=256, ge=1, le=65_536, description="Captions or pictures embedded at once.")
    exclude_self: bool = Field(default=False, description="No query is an answer to itself, where the index holds it.")
    limit: int = Field(default=20, ge=1, description="Figures are of the first this many answers.")
    distance: str = Field(default="cosine", description="Answers are ordered by it; `cosine` is the only one.")
    gather_examples: bool = Field(
        default=False, description="Keep the first answers to some queries, in `report/callback-1.json` and so on."
    )
    caption: str | None = Field(default=None, description="Begins the lines in the run's history.")

    @field_validator("query_data", "index_data")
    @classmethod
    def _valid_name(cls, value: str | None) -> str | None:
        return value if value is None else check_name(value)

    @field_validator("distance")
    @classmethod
    def _known_distance(cls, value: str) -> str:
        if value != "cosine":
            raise ValueError(
                "is not known. CLIP is trained on cosine similarity, and its embeddings have unit length: use cosine"
            )
        return value

    @model_validator(mode="after")
    def _self_is_there(self) -> Self:
        same = self.encoders[0] == self.encoders[1] and self.index_data in (None, self.query_data)
        if self.exclude_self and not same:
            raise ValueError(
                "has exclude_self, but no query is among its answers: that takes model and index_model to be the same, and "
                "no index_data. Leave exclude_self out"
            )
        return self

    @property
    def searched(self) -> str:
        """The dataset that is searched."""
        return self.index_data or self.query_data

    @property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """What embeds the queries, and what embeds the index."""
        other: dict[Encoder | None, Encoder] = {"clip-text": "clip-vision", "clip-vision": "clip-text", None: "clip-text"}
        queries = self.model or other[self.index_model]
        return queries, self.index_model or other[queries]


class Monitoring(_Settings):
    """Looks at one figure of each epoch."""

    monitor: str = Field(default="val_loss", description=f"The figure, one of: {', '.join(MONITORS)}.")
    mode: Mode = Field(default="auto", description="Which is better, the smaller (`min`) or the larger; `auto` knows.")

    @field_validator("monitor")
    @classmethod
    def _known_monitor(cls, value: str) -> str:
        return one_of(value, tuple(MONITORS))

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        if self.mode not in ("auto", MONITORS[self.monitor]):
            better = {"min": "smaller", "max": "larger"}[MONITORS[self.monitor]]
            raise ValueError(f"has mode = {self.mode!r}, but the {better} {self.monitor} is the better one. Leave mode out")
        return self

    @property
    def sign(self) -> int:
        """What the figure is multiplied by so that more is better."""
        return 1 if MONITORS[self.monitor] == "max" else -1


class EarlyStopping(Monitoring):
    """Ends a training that no longer gets better, by another figure or rule than `early_stopping_patience`."""

    kind: Literal["early_stopping"] = Field(description="What it does.")
    patience: int = Field(default=2, ge=1, description="Epochs in a row that bring nothing, after which training ends.")
    min_delta: float = Field(default=0.0, ge=0, description="A figure is better only if it is by more than this.")
    baseline: float | None = Field(default=None, description="Epochs whose figure is not better than this bring nothing.")


class BestModelCheckpoint(Monitoring):
    """Chooses the best weights by another figure of the validation part than mean recall."""

    kind: Literal["best_model_checkpoint"] = Field(description="What it does.")

    @field_validator("monitor")
    @classmethod
    def _of_the_start_as_well(cls, value: str) -> str:
        if value == "train_loss":
            raise ValueError(_NOT_OF_THE_START)
        return value


class TrainingCheckpoint(_Settings):
    """Keeps the weights of the last epochs, in `checkpoints/epoch-1.safetensors` and so on."""

    kind: Literal["training_checkpoint"] = Field(description="What it does.")
    last_k_epochs: int = Field(default=1, ge=1, le=10_000, description="The weights of so many epochs are kept.")


class WiSEFTCallback(_Settings):
    """Exports weights between the start's and the best ones by a fixed share, instead of the best of several."""

    kind: Literal["wise_ft"] = Field(description="What it does.")
    alpha: float = Field(
        default=0.4, ge=0, le=1, description="Share of the trained weights; 0 is the start, 1 the trained weights alone."
    )


class Logger(_Settings):
    """Is told what the run's history is told, and decides nothing."""

    package: ClassVar[str] = ""
    """What has to be installed for it."""


class TensorBoardLogger(Logger):
    """Writes a run's figures as TensorBoard's event files, into its folder."""

    package = "tensorboard"

    kind: Literal["tensorboard"] = Field(description="What it does.")
    log_dir: str = Field(default="tensorboard", description="Folder's name in the run's folder `loggers`.")

    @field_validator("log_dir")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if check_name(value) in ("mlflow", "wandb"):
            raise ValueError("is where another logger writes. Use another name")
        return value


class MLflowLogger(Logger):
    """Sends a run's figures to an MLflow server, or writes them into its folder."""

    package = "mlflow"

    kind: Literal["mlflow"] = Field(description="What it does.")
    tracking_uri: str | None = Field(
        default=None,
        max_length=2000,
        description="Web address of a server that `ATTUNE_TRACKING_HOSTS` allows; without it the service's own "
        "`MLFLOW_TRACKING_URI`, or else the run's folder `loggers/mlflow`.",
    )
    experiment: str | None = Field(
        default=None, min_length=1, max_length=200, description="MLflow's experiment; by default the run's own."
    )
    run_name: str | None = Field(
        default=None, min_length=1, max_length=200, description="Name of MLflow's run; by default the run's own."
    )
    run_description: str | None = Field(default=None, max_length=4000, description="Free text, shown with MLflow's run.")
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of MLflow's run: `{'team': 'search'}`.")

    @field_validator("tracking_uri")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            parts = urlsplit(value)
            known = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1) > 0
        except ValueError:
            known = False
        if not known:
            raise ValueError("is no web address. Write it as http://HOST:PORT or https://HOST")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "holds more than an address. Names, passwords and tokens belong into the service's environment: "
                "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN"
            )
        return value

    @field_validator("tags")
    @classmethod
    def _tags_of_ones_own(cls, value: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in value if name.startswith("mlflow.") or not 0 < len(name) <= 250]:
            raise ValueError(f"has {wrong[0][:100]!r}: give names of 1 to 250 characters that do not begin with mlflow.")
        return value


class WandBLogger(Logger):
    """Writes a run's figures as Weights & Biases' files, or sends them there."""

    package = "wandb"

    kind: Literal["wandb"] = Field(description="What it does.")
    project: str = Field(default="attune", min_length=1, max_length=100, description="Project of Weights & Biases.")
    mode: Literal["offline", "online"] = Field(
        default="offline",
        description="`offline` writes into the run's folder `loggers/wandb`, for `wandb sync`; `online` sends, if "
        "`ATTUNE_TRACKING_HOSTS` allows `api.wandb.ai` (or the host of the service's `WANDB_BASE_URL`).",
    )
    entity: str | None = Field(default=None, min_length=1, max_length=100, description="User or team that it belongs to.")
    name: str | None = Field(default=None, min_length=1, max_length=100, description="Of W&B's run; by default the run's.")
    group: str | None = Field(default=None, min_length=1, max_length=100, description="W&B's runs that belong together.")
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), description="Tags of W&B's run."
    )

    @field_validator("project")
    @classmethod
    def _plain_project(cls, value: str) -> str:
        if wrong := sorted(set(value) & set("/\\#?%:")):
            raise ValueError(f"has {' '.join(wrong)}, which Weights & Biases does not take. Leave them out")
        return value


class OwnCallback(Logger):
    """A class of yours that is told of each epoch and, every second or so, of a step: see `attune.training.loggers.own`."""

    many = True

    kind: Literal["own"] = Field(description="What it does.")
    name: str = Field(
        max_length=300,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="Where the class is, `mypackage.module.Name`, in a package that `ATTUNE_CALLBACK_PACKAGES` allows.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="What it is made with, by name.")


KINDS: dict[str, type[_Settings]] = {
    "evaluation": EvaluationCallback,
    "early_stopping": EarlyStopping,
    "best_model_checkpoint": BestModelCheckpoint,
    "training_checkpoint": TrainingCheckpoint,
    "wise_ft": WiSEFTCallback,
    "tensorboard": TensorBoardLogger,
    "mlflow": MLflowLogger,
    "wandb": WandBLogger,
    "own": OwnCallback,
}


def kind_of(callback: Any) -> str | None:
    """The kind of a callback's settings, read or not; None if there is none such. Without a word it is `evaluation`."""
    kind = callback.get("kind", "evaluation") if isinstance(callback, dict) else getattr(callback, "kind", "evaluation")
    return kind if isinstance(kind, str) and kind in KINDS else None


Callback = Annotated[
    Annotated[EvaluationCallback, Tag("evaluation")]
    | Annotated[EarlyStopping, Tag("early_stopping")]
    | Annotated[BestModelCheckpoint, Tag("best_model_checkpoint")]
    | Annotated[TrainingCheckpoint, Tag("training_checkpoint")]
    | Annotated[WiSEFTCallback, Tag("wise_ft")]
    | Annotated[TensorBoardLogger, Tag("tensorboard")]
    | Annotated[MLflowLogger, Tag("mlflow")]
    | Annotated[WandBLogger, Tag("wandb")]
    | Annotated[OwnCallback, Tag("own")],
    Discriminator(kind_of),
]
"""Any of them."""
