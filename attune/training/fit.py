"""The training loop: epochs of steps, each watched by the guards, each epoch measured on the validation part."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attune.callback_settings import TrainingCheckpoint
from attune.errors import TrainingError, TrainingStopped
from attune.evaluation.measure import Measurement, measure
from attune.figures import CHOSEN_BY
from attune.losses.cross_batch_memory import remember
from attune.metrics import worth
from attune.models.trainable import train_mode
from attune.models.weights import save_weights
from attune.training.average import statistics
from attune.training.callbacks import watch
from attune.training.checkpoints import Stateful
from attune.training.checks import check_data, check_pairs, estimate_run
from attune.training.continuing import load_optimizer, origin
from attune.training.distributed import agree, any_of, average_gradients, broadcast
from attune.training.feed import Batch
from attune.training.guards import RATE_AFTER_FALL, chance_loss, first_check, is_chance, is_uncorrelated, is_unsorted
from attune.training.job import Job
from attune.training.memory import with_enough_memory
from attune.training.monitor import early_stopping, epochs_in_vain, figures_of, monitored, note
from attune.training.optimizer import set_learning_rate
from attune.training.position import Candidate, Position
from attune.training.step import backward

MAX_LOGIT_SCALE = 100.0
"""CLIP's own bound: above it training becomes unstable (Radford et al. 2021, section 2.5). A model that starts above it, as
SigLIP's do, has its start as bound."""


def fit(job: Job) -> None:
    """Trains from the last checkpoint, or from the start, to the last epoch or until it no longer gets better.

    Leaves `checkpoints/best.safetensors`: the weights of the highest mean validation recall, Spearman's correlation where
    captions have scores, or MAP@R of single items; or the best of the figure that a `BestModelCheckpoint` names. The
    starting weights are candidates too: if nothing beats them, they are the result.

    Raises:
        TrainingError: if a guard gives up; the message says what was found and what to do.
        TrainingStopped: if it was asked to stop; the next `fit` goes on from there.
    """
    resumed = restore(job)
    job.history.resume(job.position.history if resumed else None)
    if not resumed:
        begin(job)
        check_data(job)
        estimate_run(job)
        start = measure_candidate(job, Candidate(0, "start", 0.0))
        train = job.parts.train
        if start is not None and job.settings.check_pairs and not (train.is_graded or train.kind.is_single):
            check_pairs(job, start)
        if knows_nothing(job) and not job.guards.scratch:
            job.guards.expect_nothing_of_the_start()
            job.log("the starting model knows nothing of this data yet: it is guarded as random weights are", kind="guard")
        watch(job, 0)
        save(job)

    while not is_done(job):
        position = job.position
        plan = job.feed.plan(position.epoch)
        if not train_epoch(job, plan):
            roll_back(job)
            continue
        loss = float(np.mean(position.losses)) if position.losses else math.nan  # every step of it was skipped
        after = Candidate(position.epoch, "weights", 0.0, loss)
        measure_candidate(job, after)
        if is_much_worse(job, after):
            start_over(job, after)
            continue
        watch(job, position.epoch)
        if job.average is not None:
            with job.average.applied(job.clip.model):
                measure_candidate(job, Candidate(position.epoch, "average", 0.0, loss))
        keep(job)
        position.next_epoch()
        save(job)
    if job.position.epoch <= job.recipe.epochs:
        other = early_stopping(job.settings)
        what = f"validation {CHOSEN_BY[job.chosen_by]}" if other is None else other.monitor
        job.log(f"stopped after epoch {job.position.epoch - 1} of {job.recipe.epochs}: {what} got no better")
    job.guards.step.check_end()


def knows_nothing(job: Job) -> bool:
    """Whether the starting model does no better on the validation part than chance."""
    found, validation = job.position.start.mean_recall, job.parts.validation
    if validation.kind.is_single:
        return is_unsorted(found, validation.labels)
    return is_uncorrelated(found, len(validation.texts)) if validation.is_graded else is_chance(found, len(validation))


def begin(job: Job) -> None:
    """Says which run the model comes from, if from any, and takes over its optimizer's state where that is asked for."""
    earlier = origin(job.settings)
    if earlier is None:
        return
    said = f"begins with the model of the run {earlier.reference}"
    if job.settings.continue_optimizer:
        steps = load_optimizer(earlier, job.clip.model, job.optimizer)
        said += ", and with its optimizer's state" + f" after {steps} steps" * bool(steps)
    job.log(said)


def is_done(job: Job) -> bool:
    """Whether all epochs are done, or the last ones brought nothing."""
    position, patience, other = job.position, job.settings.early_stopping_patience, early_stopping(job.settings)
    in_vain = position.epoch - 1 - position.best.epoch
    if other is not None:
        patience, in_vain = other.patience, epochs_in_vain(position.candidates, other)
    return position.epoch > job.recipe.epochs or bool(patience and in_vain >= patience)


def train_epoch(job: Job, plan: list[np.ndarray]) -> bool:
    """The rest of the epoch at work; False if the guards ask for a roll back."""
    position, recipe = job.position, job.recipe
    batches = job.feed.batches(position.epoch, plan, position.step)
    running = statistics(job.clip.model)
    while position.step < len(plan):
        with job.progress.clock("data"):
            batch = next(batches)
        number = (position.epoch - 1) * recipe.steps_per_epoch + position.step
        learning_rate = recipe.learning_rate_at(number) * position.rate
        set_learning_rate(job.optimizer, learning_rate)
        if job.loss_optimizer is not None:
            set_learning_rate(job.loss_optimizer, job.settings.loss_learning_rate * recipe.share_at(number) * position.rate)
        # All chance in a step follows from the seed and its number: a resumed run repeats an unbroken one.
        torch.manual_seed((job.settings.seed * 1_000_003 + number) * job.world.size + job.world.rank)
        train_mode(job.clip.model)
        unchanged = {name: value.clone() for name, value in running.items()}
        loss = compute_gradients(job, batch)
        with job.progress.clock("optimizer"):
            norm = torch.nn.utils.clip_grad_norm_(job.clip.model.parameters(), job.settings.max_grad_norm).item()
            scale = job.clip.model.logit_scale.exp().item()
            action = job.guards.after_step(number + 1, loss, norm, learning_rate, batch.rows, scale, _chance(job, batch))
            if action == "roll_back":
                return False
            if action == "step":
                for optimizer in job.optimizers:
                    optimizer.step()
                with torch.no_grad():
                    job.clip.model.logit_scale.clamp_(0, math.log(max(MAX_LOGIT_SCALE, job.guards.scale.start_scale)))
                if job.average is not None:
                    job.average.update(job.clip.model)
                remember(job.criterion)
                position.losses.append(loss)
            else:  # the forward pass has put what is no number into the running statistics as well
                for name, value in running.items():
                    value.copy_(unchanged[name])
        position.step += 1
        if job.world.is_main:
            job.progress.step(number + 1, position.epoch, loss, learning_rate, sum(batch.text_counts) or len(batch), scale)
        if any_of(job.stop(), job.world):
            save(job, within_epoch=True)
            raise TrainingStopped(
                f"Training was asked to stop and did, after step {number + 1} of {recipe.total_steps}. "
                "Start the run again to go on from there"
            )
        if job.checkpoints.is_due:
            save(job, within_epoch=True)
    return True


def compute_gradients(job: Job, batch: Batch) -> float:
    """Leaves the gradients of a batch in the parameters and returns its loss."""
    model, position = job.clip.model, job.position

    def attempt(micro_batch_size: int | None) -> Tensor:
        with job.progress.clock("backward"):
            return backward(
                _clocked(job, job.towers.encode_images),
                _clocked(job, job.towers.encode_texts),
                batch.images,
                batch.texts,
                lambda images, texts: job.loss(images, texts, batch),
                micro_batch_size,
                model=model,
            )

    def clear() -> None:
        for optimizer in job.optimizers:
            optimizer.zero_grad(set_to_none=True)

    if job.world.size == 1:
        loss, position.micro_batch_size = with_enough_memory(attempt, position.micro_batch_size, len(batch), job.log, clear)
    else:  # processes wait for each other in every step: one that tried again alone would leave the others waiting
        clear()
        loss = attempt(position.micro_batch_size)
    average_gradients([*model.parameters(), *job.loss_weights], job.world)
    return loss.item()


def _chance(job: Job, batch: Batch) -> float | None:
    """The loss of a model that tells nothing apart, if that can be said of this loss."""
    if job.recipe.loss != "CLIPLoss" or batch.positives is not None:
        return None
    return chance_loss(sum(batch.image_counts), sum(batch.text_counts))


def _clocked(job: Job, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def clocked(rows: Tensor) -> Tensor:
        with job.progress.clock("forward"):
            return encode(rows)

    return clocked


def measure_candidate(job: Job, candidate: Candidate) -> Measurement | None:
    """Measures the model as it is on the validation part; keeps its weights if none before were as good.

    Returns:
        The measurement, in the main process; None of weights that cannot be a result.
    """
    broadcast((*job.clip.model.parameters(), *job.clip.model.buffers()), job.world)
    measurement, figures = None, dict[str, float]()
    scale = job.clip.model.logit_scale.exp().item()
    if job.world.is_main:
        with job.progress.clock("validation"):
            measurement = measure(job.clip, job.parts.validation, job.validation_cache)
        candidate.mean_recall = judged(job, candidate, measurement)
        figures = figures_of(measurement, job.parts.validation, scale, job.recipe.batch_size)
        if candidate.kind == "weights":
            figures["train_loss"] = candidate.loss
    candidate.mean_recall = agree(candidate.mean_recall, job.world)
    note(
        candidate,
        {name: agree(figures.get(name, math.nan), job.world) for name in monitored(job.settings)},
        job.settings,
    )
    job.position.candidates.append(candidate)
    if measurement is None or math.isnan(candidate.mean_recall):
        return None
    if candidate.kind == "start":
        save_weights(job.checkpoints.start, job.weights())
    if job.position.best is candidate:
        save_weights(job.checkpoints.best, job.weights())
    averaged = candidate.kind == "average"
    job.log(
        f"epoch {candidate.epoch}{', averaged' * averaged}: validation {_said(measurement)}",
        kind="average" if averaged else "validation",
        epoch=candidate.epoch,
        loss=candidate.loss,
        logit_scale=scale,
        **{name: value for name, value in figures.items() if name != "train_loss"},
    )
    return measurement


def _said(measurement: Measurement) -> str:
    """Its main figures in words."""
    name, value = worth(measurement.metrics)
    if name == "spearman":
        return f"spearman {value:.4f}, pearson {measurement.metrics['pearson']:.4f}"
    kind = measurement.kind
    first, *other = (
        f"{arrow} {measurement.metrics[f'{direction}_recall@5']:.4f}"
        for arrow, direction in zip(kind.arrows, kind.directions, strict=True)
    )
    return ", ".join((f"{name.replace('_', ' ')} {value:.4f}", first.replace(" ", " recall@5 "), *other))


def judged(job: Job, candidate: Candidate, measurement: Measurement) -> float:
    """What a candidate is worth whose embeddings the guards find healthy; no number if it may be tried again.

    Raises:
        TrainingError: if they are all alike. After the first epoch, for the first time, that is a clear fall as others are.
    """
    where = f"after epoch {candidate.epoch}" if candidate.epoch else "of the starting model"
    try:
        job.guards.after_validation(measurement.images, measurement.texts, where)
    except TrainingError as error:
        if not may_start_over(job, candidate):
            raise
        job.log(str(error), kind="guard")
        return math.nan  # what `is_much_worse` takes for a fall
    return worth(measurement.metrics)[1]


def keep(job: Job) -> None:
    """Writes the weights of the epoch at work if a `TrainingCheckpoint` asks for them."""
    for callback in job.settings.callbacks_of(TrainingCheckpoint):
        if job.world.is_main:
            job.checkpoints.keep(job.weights(), job.position.epoch, callback.last_k_epochs)


def save(job: Job, within_epoch: bool = False) -> None:
    """Writes the checkpoint a resumed run goes on from."""
    if job.world.is_main:
        job.position.history = job.history.size
        job.checkpoints.save(job.position.state_dict(), within_epoch, **_parts(job))


def restore(job: Job, back: bool = False) -> bool:
    """Puts the job back to its last checkpoint, or that of the last epoch's end; False if there is none."""
    state = job.checkpoints.restore(job.clip.device, back, **_parts(job))
    if state is None:
        return False
    job.position = Position.from_state(state)
    return True


def roll_back(job: Job) -> None:
    """Goes back to the last checkpoint with the lower rate that the guards ask for."""
    guards = job.guards.state_dict()
    restore(job, back=True)
    agree(0, job.world)  # all have read the checkpoint before it is written again
    job.guards.load_state_dict(guards)  # they remember how often this has happened
    position = job.position
    position.rate = job.guards.rate_factor * (RATE_AFTER_FALL if position.rolled_back else 1.0)
    job.log(f"back to epoch {position.epoch}, step {position.step}; learning rate x {position.rate:.3g}", kind="guard")
    save(job)


def may_start_over(job: Job, after: Candidate) -> bool:
    """Whether these are the weights of the first epoch, for the first time."""
    return after.kind == "weights" and after.epoch == 1 and not job.position.rolled_back


def is_much_worse(job: Job, after: Candidate) -> bool:
    """Whether the first epoch made the model clearly worse than it was, for the first time."""
    start, pictures = max(0.0, job.position.start.mean_recall), len(job.parts.validation)  # a correlation may be below 0
    return may_start_over(job, after) and first_check(start, after.mean_recall, pictures)


def start_over(job: Job, after: Candidate) -> None:
    """Begins again with a smaller rate."""
    start = job.position.start.mean_recall
    restore(job, back=True)
    agree(0, job.world)
    job.position.rate *= RATE_AFTER_FALL
    job.position.rolled_back = True
    what = job.chosen_by.replace("_", " ")
    fell = f"validation {what} fell from {start:.4f} to {after.mean_recall:.4f}"
    if math.isnan(after.mean_recall):
        fell = "the model collapsed"
    job.log(f"{fell} in the first epoch: starting over with {RATE_AFTER_FALL:.2g} times the learning rate", kind="guard")
    save(job)


def _parts(job: Job) -> dict[str, Stateful]:
    parts = {"model": job.clip.model, "optimizer": job.optimizer, "guards": job.guards, "average": job.average}
    if isinstance(job.criterion, torch.nn.Module):
        parts |= {"loss": job.criterion, "loss_optimizer": job.loss_optimizer}
    return {name: part for name, part in parts.items() if part is not None}
