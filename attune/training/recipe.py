"""The recipe of a run: what `auto` means for this model and this data, and how many steps it comes to."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from attune.data.loss_data import usual_loss
from attune.data.pairs import Pairs
from attune.errors import SettingsError
from attune.idle import can_be_taught
from attune.losses.table import LOSSES, kinds_of, needs_meeting
from attune.models.mlp import EmbeddingTower
from attune.optimizers import OPTIMIZERS
from attune.settings import FinetuningSettings
from attune.training.schedule import CYCLES, POWER, SHARES, Shape

REFERENCE_PARAMETERS = 151e6
"""Of a ViT-B-32, for which 1e-5 with 256 pairs a step is the best plain rate on COCO and Flickr30k in several repositories
(leolee99/CLIP_ITM; the ITRA documentation finds 1e-5 to 2e-5). Smaller models take larger steps: in inverse proportion a
ViT-L-14 comes to 3.5e-6, and `starter` to 3.1e-4."""

LEAST_STEPS = 200
"""A rate as small as CLIP's moves nothing in fewer steps: a few hundred pairs need more than five passes. What is so little
that even the most passes do not come to as many has fewer: 160 of up to 1,024 pictures."""

MOST_AUTO_EPOCHS = 40

MOST_PICTURES, LEAST_PICTURES = 256, 16
"""In a step, unless more or fewer are asked for."""

STEPS_AN_EPOCH, STEPS_AN_EPOCH_OF_NEW = 4, 15
"""At least, of data that is too small for as many such steps; more of what is new to the model."""

KNOWN = 0.3
"""The novelty up to which a model is fine-tuned as one that knows its subject, as `starter` does emoji that another artist
drew: 0.28."""

MOST_STRETCH = 10.0
"""How much longer the steps are on data that is wholly new to the model: there is little to keep, and much to learn. For the
two starts of `benchmarks/recipe_quality.py` this comes to 3e-4 and 1.8e-3, of which the second still learns more than at
9e-4."""

MUCH = 0.5
"""The stretch from which a model has so much to learn that it is trained as random weights are: with one rate for all
layers, a temperature that follows at once, and pictures that are changed much."""

SCRATCH_RATE = 1e-3

MOST_RATE = 2e-3
"""On data that is new to the model: at twice this a small one learns less."""


@dataclass(frozen=True)
class Recipe:
    """What a run does, with nothing left to decide.

    Attributes:
        loss: name in `attune.losses.table.LOSSES`.
        loss_options: its own.
        sampler: which pictures meet in a batch, `random` or `class`.
        batch_size: pictures a step, over all processes.
        epochs: passes over the training pictures.
        steps_per_epoch: optimizer steps of each.
        optimizer: name in `attune.optimizers.OPTIMIZERS`.
        learning_rate: peak.
        weight_decay: of matrices.
        warmup_steps: steps over which the peak is reached.
        scheduler: what the learning rate does afterwards, a name in `attune.training.schedule.SHARES`.
        schedule_steps: steps after which it stays as it is.
        steps_a_rate: steps of the same rate after warm-up: 1, or those of an epoch.
        cycles: of the scheduler.
        power: of the scheduler.
        layer_wise_lr_decay: factor from each layer to the one below.
        logit_scale_rate: factor of the temperature's learning rate, 0 to 1.
        ema_decay: of the running average of the weights; 0 is none.
        self_distillation: share of the target that this average gives in the end, 0 to 1; see `attune.training.teacher`.
        augmentation: of training pictures.
        horizontal_flip: share of them that are mirrored, 0 to 1.
        novelty: of the data to the starting model, 0 to 1; see `attune.training.novelty`.
    """

    loss: str
    loss_options: dict[str, Any]
    sampler: str
    batch_size: int
    epochs: int
    steps_per_epoch: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    scheduler: str
    schedule_steps: int
    steps_a_rate: int
    cycles: float
    power: float
    layer_wise_lr_decay: float
    logit_scale_rate: float
    ema_decay: float
    self_distillation: float
    augmentation: str
    horizontal_flip: float
    novelty: float

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def record(self) -> dict[str, Any]:
        """All values by name, as the run keeps them."""
        return {**asdict(self), "total_steps": self.total_steps}

    def share_at(self, step: int) -> float:
        """Of the peak learning rate; see `learning_rate_at`."""
        return self.learning_rate_at(step) / self.learning_rate

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up from 0, then what the scheduler says; `constant` has no warm-up.

        Args:
            step: 0 for the first step of the run.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        step = max(self.warmup_steps, step - step % self.steps_a_rate)
        done = min(1.0, (step - self.warmup_steps) / max(1, self.schedule_steps - self.warmup_steps))
        return self.learning_rate * SHARES[self.scheduler](done, Shape(self.cycles, self.power))


def choose_recipe(settings: FinetuningSettings, model: nn.Module, train: Pairs, novelty: float = 0.0) -> Recipe:
    """Decides what the settings leave open.

    Args:
        settings: of the run.
        model: the model to train; its size, and whether it was pre-trained with a sigmoid loss.
        train: pairs to learn from.
        novelty: of these to the model, 0 to 1; see `attune.training.novelty`.

    Raises:
        SettingsError: as of `loss_of`.
    """
    scratch = settings.from_scratch
    stretch = 1.0 if scratch else max(0.0, (novelty - KNOWN) / (1 - KNOWN))
    is_new = stretch >= MUCH
    loss = loss_of(settings, model, train)
    unseen = is_new and not scratch  # for random weights batches and mirrored pictures were not measured
    batch_size = batch_size_of(settings, len(set(train.groups)), unseen)
    pictures_per_epoch = min(len(train), settings.images_per_epoch or len(train))
    steps = max(1, -(-pictures_per_epoch // batch_size))
    # Small data needs more passes, up to where it would only be learnt by heart.
    least = LEAST_STEPS * MOST_PICTURES // batch_size if unseen else LEAST_STEPS  # smaller batches, as many pictures
    most = MOST_AUTO_EPOCHS * len(train) // pictures_per_epoch  # passes over all of the data, however much an epoch takes
    epochs = settings.epochs if settings.epochs != "auto" else min(most, max(5, -(-least // steps)))
    total = steps * epochs
    decay = settings.layer_wise_lr_decay
    scheduler, options = settings.scheduler, settings.scheduler_options
    scale = settings.logit_scale
    if scale == "auto":
        scale = "learned" if is_new else "slow"
    augmentation = _augmentation(settings, model, is_new)
    return Recipe(
        loss=loss,
        loss_options=_loss_options(settings, loss, model),
        sampler=_sampler(settings, loss, train),
        batch_size=batch_size,
        epochs=epochs,
        steps_per_epoch=steps,
        optimizer=settings.optimizer,
        learning_rate=_learning_rate(settings, model, batch_size, stretch),
        weight_decay=_weight_decay(settings),
        warmup_steps=_warmup_steps(settings, total),
        scheduler=scheduler,
        schedule_steps=total if options.num_training_steps == "auto" else options.num_training_steps,
        steps_a_rate=steps if options.scheduler_step == "epoch" else 1,
        cycles=options.num_cycles or CYCLES.get(scheduler, 1.0),
        power=options.power or POWER,
        layer_wise_lr_decay=decay if decay != "auto" else 1.0 if is_new else 0.9,
        logit_scale_rate={"learned": 1.0, "slow": 0.1, "frozen": 0.0}[scale],
        ema_decay=_ema_decay(settings, total),
        self_distillation=settings.self_distillation,
        augmentation=augmentation,
        horizontal_flip=_horizontal_flip(settings, train, augmentation, unseen),
        novelty=novelty,
    )


def loss_of(settings: FinetuningSettings, model: nn.Module, train: Pairs) -> str:
    """The name of the loss a model learns with; arguments as of `choose_recipe`.

    Raises:
        SettingsError: if the model was not made for it, or it cannot learn from the teacher that is asked for.
    """
    has_bias = getattr(model, "logit_bias", None) is not None
    loss = settings.loss
    if loss == "auto":
        loss = usual_loss(train)
        if loss == "CLIPLoss" and has_bias:
            loss = "SigLIPLoss"
    if not has_bias and any(kind.biased for kind in kinds_of(loss, settings.loss_options)):
        raise SettingsError(
            f"loss = {loss!r} learns with a bias of the logits, and {settings.model!r} has none. Use CLIPLoss, or begin "
            "with a SigLIP model such as ViT-B-16-SigLIP#webli"
        )
    if settings.self_distillation and not can_be_taught(loss, settings.loss_options):
        raise SettingsError(
            f"self_distillation = {settings.self_distillation} is a share of the target of CLIPLoss, and loss = 'auto' is "
            f"{loss} for this model. Leave it out, or set loss to CLIPLoss"
        )
    return loss


def _loss_options(settings: FinetuningSettings, loss: str, model: Any) -> dict[str, Any]:
    if not LOSSES[loss].temperature:
        return settings.loss_options
    # The library's own, 0.1 or 0.07, is far above that of a trained CLIP, 0.01, whose similarities all lie close together.
    return {"temperature": float(f"{1 / model.logit_scale.exp().item():.4g}"), **settings.loss_options}


def _sampler(settings: FinetuningSettings, loss: str, train: Pairs) -> str:
    if settings.sampler != "auto":
        return settings.sampler
    return "class" if needs_meeting(loss, settings.loss_options, train.kind.is_single) else "random"


def batch_size_of(settings: FinetuningSettings, groups: int, unseen: bool = False) -> int:
    """Pictures a step, of a number of distinct groups to train on; fewer where the model has seen nothing like them."""
    share = groups // (STEPS_AN_EPOCH_OF_NEW if unseen else STEPS_AN_EPOCH)
    wanted = settings.batch_size if settings.batch_size != "auto" else min(MOST_PICTURES, max(LEAST_PICTURES, share))
    return max(2, min(wanted, groups, settings.images_per_epoch or groups))


def _learning_rate(settings: FinetuningSettings, model: nn.Module, batch_size: int, stretch: float) -> float:
    if settings.learning_rate != "auto":
        return settings.learning_rate
    rate = SCRATCH_RATE
    if not settings.from_scratch:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rate = 1e-5 * REFERENCE_PARAMETERS / parameters * MOST_STRETCH**stretch
        if settings.lora_rank:
            rate *= 10  # it underfits at the rates of full training
        rate = min(rate, MOST_RATE if stretch >= MUCH and not settings.lora_rank else SCRATCH_RATE)
    # Adam's steps grow with the square root of the batch (Malladi et al. 2022, arXiv:2205.10287).
    return float(f"{rate * math.sqrt(batch_size / 256):.2g}")


def _weight_decay(settings: FinetuningSettings) -> float:
    decay = settings.weight_decay
    return decay if decay != "auto" else OPTIMIZERS[settings.optimizer].weight_decay or 0.0


def _warmup_steps(settings: FinetuningSettings, total: int) -> int:
    if settings.scheduler_options.num_warmup_steps is not None:
        return min(total, settings.scheduler_options.num_warmup_steps)
    if not settings.warmup_ratio or settings.scheduler == "constant":
        return 0
    least = min(20, total // 5)  # Adam's moments start at zero and need some steps to be worth following
    return min(500, max(least, round(total * settings.warmup_ratio)))


def _ema_decay(settings: FinetuningSettings, total: int) -> float:
    if settings.ema_decay != "auto":
        return settings.ema_decay
    return round(1 - 3 / max(4, total), 6) if total >= 30 or settings.self_distillation else 0.0


def _augmentation(settings: FinetuningSettings, model: Any, is_new: bool) -> str:
    if settings.augmentation != "auto":
        return settings.augmentation
    if isinstance(getattr(model, "visual", None), EmbeddingTower):
        return "none"
    if settings.lock_image:  # the same picture is then the same embedding, computed once
        return "none"
    return "strong" if is_new else "light"


def _horizontal_flip(settings: FinetuningSettings, train: Pairs, augmentation: str, unseen: bool) -> float:
    if settings.horizontal_flip != "auto":
        return settings.horizontal_flip
    return 0.5 if unseen and augmentation != "none" and not train.kind.of_texts else 0.0
