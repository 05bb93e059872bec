"""Weights that may be chosen, tried on the validation part and on the data that must not be forgotten."""

from torch import Tensor

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import Measurement, measure
from attune.metrics import worth
from attune.training.compare import of_items
from attune.training.job import Job
from attune.training.monitor import best_by, figures_of, note
from attune.training.position import Candidate

Weights = dict[str, Tensor]


def measured(job: Job, weights: Weights) -> Candidate:
    """What these weights are on the validation part."""
    measurement = _measure(job, weights, job.parts.validation, job.validation_cache)
    candidate = Candidate(job.position.epoch - 1, "interpolated", worth(measurement.metrics)[1])
    candidate.of_items = of_items(measurement, job.parts.validation)
    scale = job.clip.model.logit_scale.exp().item()
    note(candidate, figures_of(measurement, job.parts.validation, scale, job.recipe.batch_size), job.settings)
    return candidate


def keeps(job: Job, weights: Weights, least: float) -> bool:
    """Whether these weights are at least so good on the retention data, if there is any."""
    return retention(job, weights) >= least


def retention(job: Job, weights: Weights) -> float:
    """Mean recall of these weights on the retention data, or Spearman's correlation; 0 if there is none."""
    if job.parts.retention is None:
        return 0.0
    return worth(_measure(job, weights, job.parts.retention, job.retention_cache).metrics)[1]


def said(job: Job, found: Candidate) -> str:
    """What weights are on the validation part, in words."""
    chooser = best_by(job.settings)
    other = "" if chooser is None else f", {chooser.monitor} {found.figures[chooser.monitor]:.4f}"
    return f"validation {job.chosen_by.replace('_', ' ')} {found.mean_recall:.4f}{other}"


def _measure(job: Job, weights: Weights, pairs: Pairs, cache: PixelCache | None) -> Measurement:
    job.clip.model.load_state_dict(weights)
    with job.progress.clock("validation"):
        return measure(job.clip, pairs, cache)
