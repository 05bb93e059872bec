"""Candidates for a run's result: measured on the validation part, and kept if none before was clearly better."""

import math

from attune.callback_settings import TrainingCheckpoint
from attune.errors import TrainingError
from attune.evaluation.measure import Measurement, measure
from attune.metrics import worth
from attune.models.weights import save_weights
from attune.training.compare import is_clearly_behind, of_items
from attune.training.distributed import agree, broadcast
from attune.training.job import Job
from attune.training.monitor import figures_of, monitored, note
from attune.training.position import Candidate
from attune.training.rewind import may_start_over


def measure_candidate(job: Job, candidate: Candidate) -> Measurement | None:
    """Measures the model as it is on the validation part; keeps its weights if none before were clearly better.

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
    if measurement is not None:
        candidate.of_items = of_items(measurement, job.parts.validation)
    candidate.is_behind = bool(agree(is_behind(job, candidate), job.world))
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


def is_behind(job: Job, candidate: Candidate) -> bool:
    """Whether weights that were just measured are clearly worse than the highest before; see `Position.best`."""
    return not job.position.candidates or is_clearly_behind(candidate, job.position.highest)


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
