"""What is done besides training while a run trains."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from attune.schemas import TrainingExample


@dataclass(frozen=True)
class EvaluationCallback:
    """Looks at the model at the start and after each epoch: how well queries find what belongs to them in an index.

    The figures are in the run's history: precision, recall, f1, hit, average_precision, reciprocal_rank and dcg of the
    first `limit` answers. A query's right answers are those of its own picture, or all of its label if both datasets have
    labels. Of pairs, items look among what belongs to them, single items among others of their label, none of which is
    an answer to itself without `index_data`; of all but pictures with captions `model` and `index_model` are left out. It
    decides nothing, so its data may overlap with the training data; `eval_data` is for before and after.

    Attributes:
        query_data: name of a pushed dataset; or a `Path` or examples, which are pushed first as the run's name and `-query`.
        index_data: the same for what is searched, `-index`; by default `query_data`.
        model: `clip-text` if queries are captions, `clip-vision` if they are pictures; by default captions.
        index_model: the same for what is searched; by default what queries are not.
        batch_size: captions or pictures embedded at once.
        exclude_self: leaves each query out of its own answers, where the index holds it.
        limit: how many of the first answers count; 20 by default.
        distance: `cosine`; CLIP has no other.
        gather_examples: keeps the first answers to some queries, in the run's `report/callback-1.json` and so on.
        caption: begins the lines in the run's history.
    """

    query_data: "str | Path | Iterable[TrainingExample]"
    index_data: "str | Path | Iterable[TrainingExample] | None" = None
    model: Literal["clip-text", "clip-vision"] | None = None
    index_model: Literal["clip-text", "clip-vision"] | None = None
    batch_size: int | None = None
    exclude_self: bool = False
    limit: int | None = None
    distance: str = "cosine"
    gather_examples: bool = False
    caption: str | None = None

    def settings(self, query_name: str, index_name: str | None) -> dict[str, Any]:
        """What the run's settings say of it: see `attune.callback_settings.EvaluationCallback`.

        Args:
            query_name: name of the dataset that `query_data` is, or is pushed as.
            index_name: the same of `index_data`, if there is any.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"query_data": query_name, "index_data": index_name}
        return {name: value for name, value in values.items() if value is not None}


class Callback:
    """All but `EvaluationCallback`: they name no data."""

    kind: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """What the run's settings say of it: see `attune.callback_settings`."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, **{name: value for name, value in values.items() if value is not None}}


@dataclass(frozen=True)
class EarlyStopping(Callback):
    """Ends a training that no longer gets better; it takes the place of `early_stopping_patience`.

    Attributes:
        monitor: `val_loss`, `train_loss`, `mean_recall`, `text_to_image_recall@5` or another figure of the validation part;
            where captions have scores, `spearman` or `pearson`; of single items `text_to_text_map@r` and the like.
        mode: `min` or `max`; `auto` knows which is better.
        patience: epochs in a row that bring nothing, after which training ends.
        min_delta: a figure is better only if it is by more than this.
        baseline: epochs whose figure is not better than this bring nothing.
    """

    kind = "early_stopping"

    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    patience: int = 2
    min_delta: float = 0.0
    baseline: float | None = None


@dataclass(frozen=True)
class BestModelCheckpoint(Callback):
    """Chooses the best weights by another figure than mean recall; they are never worse in it than the start.

    Attributes:
        monitor: as for `EarlyStopping`, but for `train_loss`, which the start has none of.
        mode: `min` or `max`; `auto` knows which is better.
    """

    kind = "best_model_checkpoint"

    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"


@dataclass(frozen=True)
class TrainingCheckpoint(Callback):
    """Keeps the weights of the last epochs, in the run's `checkpoints/epoch-1.safetensors` and so on.

    Attributes:
        last_k_epochs: of how many.
    """

    kind = "training_checkpoint"

    last_k_epochs: int = 1


@dataclass(frozen=True)
class WiSEFTCallback(Callback):
    """Exports weights between the start's and the best ones by a fixed share, instead of the best share on validation.

    If those are worse than the start on validation, the start is exported, and the run's history says so.

    Attributes:
        alpha: share of the trained weights; 0 is the start, 1 the trained weights alone.
    """

    kind = "wise_ft"

    alpha: float = 0.4


@dataclass(frozen=True)
class TensorBoardLogger(Callback):
    """Writes a run's figures as TensorBoard's event files, into its folder on the service's machine.

    Attributes:
        log_dir: name of a folder in the run's folder `loggers`; `tensorboard` by default.
    """

    kind = "tensorboard"

    log_dir: str | None = None


@dataclass(frozen=True)
class MLflowLogger(Callback):
    """Sends a run's figures to an MLflow server.

    Attributes:
        tracking_uri: its web address, of a host that `ATTUNE_TRACKING_HOSTS` allows; by default the service's own
            `MLFLOW_TRACKING_URI`, or else files in the run's folder. Tokens are in the service's environment, never here.
        experiment: MLflow's; by default the run's.
        run_name: of MLflow's run; by default the run's.
        run_description: free text; by default the run's.
        tags: of MLflow's run.
    """

    kind = "mlflow"

    tracking_uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    run_description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WandBLogger(Callback):
    """Writes a run's figures as Weights & Biases' files, or sends them there.

    Attributes:
        project: of Weights & Biases.
        mode: `offline` writes into the run's folder, for `wandb sync`; `online` sends, if the service may.
        entity: user or team.
        name: of W&B's run; by default the run's.
        group: W&B's runs that belong together.
        tags: of W&B's run.
    """

    kind = "wandb"

    project: str = "attune"
    mode: Literal["offline", "online"] = "offline"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class OwnCallback(Callback):
    """A class of yours in a package on the service's machine that `ATTUNE_CALLBACK_PACKAGES` allows.

    It has `after_epoch(epoch, figures)`, `after_step(step, figures)` or both, and is told what the run's history is told.

    Attributes:
        name: where it is: `mypackage.module.Name`.
        options: what it is made with, by name.
    """

    kind = "own"

    name: str
    options: dict[str, Any] = field(default_factory=dict)
