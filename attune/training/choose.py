"""The choice of the weights a run exports, on validation: the start's, the trained ones, or those between."""

from dataclasses import dataclass

from torch import Tensor

from attune.callback_settings import WiSEFTCallback
from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import Measurement, measure
from attune.metrics import worth
from attune.models.lora import merge_lora
from attune.models.weights import DTYPES, load_weights, save_weights
from attune.training.average import between
from attune.training.compare import is_clearly_behind, of_items
from attune.training.job import Job
from attune.training.monitor import best_by, figures_of, note
from attune.training.position import Candidate

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Of the trained weights, the rest being the start's. Gains and forgetting change smoothly along this line (WiSE-FT,
arXiv:2109.01903), so a coarse grid finds what there is to find."""


@dataclass(frozen=True)
class Choice:
    """The chosen weights.

    Attributes:
        kind: `start`, `weights`, `average`, or `interpolated`.
        share: of the trained weights in them, 0 to 1.
        mean_recall: on the validation part; where captions have scores, Spearman's correlation; of single items MAP@R.
    """

    kind: str
    share: float
    mean_recall: float


def choose(job: Job) -> Choice:
    """Picks the weights and writes them to `checkpoints/chosen.safetensors` in the artifact's precision.

    It is the largest share of the trained weights that is better than the start and not clearly behind the highest mean
    recall, see `Position.best`; the highest itself of Spearman's correlation, where captions have scores, or of the figure
    that a `BestModelCheckpoint` names. A `WiSEFTCallback` fixes the share, and the start is the only other choice. With
    `retention_data`, only weights that lose at most `retention_max_drop` on it can be chosen; the start always can.
    """
    fixed = job.settings.callback_of(WiSEFTCallback)
    if job.settings.lora_rank:
        merge_lora(job.clip.model)
    start, trained = (load_weights(path) for path in (job.checkpoints.start, job.checkpoints.best))
    first, best, highest = job.position.start, job.position.best, job.position.highest
    if best.worth < highest.worth:
        job.log(
            f"{_place(best)} counts as the best with {best.mean_recall:.4f}: the {highest.mean_recall:.4f} of "
            f"{_place(highest)} may be higher by chance"
        )
    known = {0.0: first, 1.0: best}
    shares: tuple[float, ...] = SHARES if job.settings.interpolation else (1.0, 0.0)
    name = job.chosen_by
    said = f"validation {name.replace('_', ' ')}"
    kept = 0.0
    if job.parts.retention is not None:
        kept = retention(job, start) - job.settings.retention_max_drop
    as_good: dict[float, Candidate] = {}  # as the start, or better
    if fixed is not None:
        shares = (fixed.alpha, 0.0) if fixed.alpha else (0.0,)
    for share in shares if best.kind != "start" else ():
        weights = between(start, trained, share)
        found = known[share] if share in known else measured(job, weights)
        allowed = share == 0.0 or job.parts.retention is None or retention(job, weights) >= kept
        job.log(
            f"{share:.0%} of the way from the start: {said} {found.mean_recall:.4f}{_monitored(job, found)}"
            + ("" if allowed else f", but it loses more than {job.settings.retention_max_drop:g} on retention_data"),
            kind="choice",
            share=share,
            **{name: found.mean_recall},
        )
        # A share that was asked for need not be better than the start, only no worse.
        if allowed and share and (found.worth > first.worth or (fixed is not None and found.worth == first.worth)):
            as_good[share] = found
    chosen = Choice("start", 0.0, first.mean_recall)
    if as_good:
        share = largest(as_good)
        chosen = Choice(best.kind if share == 1.0 else "interpolated", share, as_good[share].mean_recall)
    if fixed is not None and fixed.alpha and not chosen.share:
        job.log(
            f"WiSEFTCallback: the start is exported, not the share of {fixed.alpha:g} that was asked for, which is worse"
        )
    dtype = DTYPES[job.settings.artifact_precision]
    save_weights(job.checkpoints.chosen, between(start, trained, chosen.share), dtype)
    job.log(
        f"chosen: {chosen.kind}, epoch {best.epoch if chosen.share else 0}, share {chosen.share:g}, {said} "
        f"{chosen.mean_recall:.4f} ({first.mean_recall:.4f} at the start)",
        kind="result",
        share=chosen.share,
        best_epoch=best.epoch if chosen.share else 0,
        **{name: chosen.mean_recall, f"start_{name}": first.mean_recall},
        steps=job.step,
    )
    return chosen


def largest(found: dict[float, Candidate]) -> float:
    """The largest of these shares, given in falling order, that is not clearly behind the highest."""
    highest = max(found.values(), key=lambda candidate: candidate.worth)
    return next(share for share, one in found.items() if one is highest or not is_clearly_behind(one, highest))


def measured(job: Job, weights: dict[str, Tensor]) -> Candidate:
    """These weights, which lie between others, on the validation part."""
    measurement = _measure(job, weights, job.parts.validation, job.validation_cache)
    candidate = Candidate(job.position.epoch - 1, "interpolated", worth(measurement.metrics)[1])
    candidate.of_items = of_items(measurement, job.parts.validation)
    scale = job.clip.model.logit_scale.exp().item()
    note(candidate, figures_of(measurement, job.parts.validation, scale, job.recipe.batch_size), job.settings)
    return candidate


def retention(job: Job, weights: dict[str, Tensor]) -> float:
    """Mean recall of these weights on the retention data, or Spearman's correlation; 0 if there is none."""
    if job.parts.retention is None:
        return 0.0
    return worth(_measure(job, weights, job.parts.retention, job.retention_cache).metrics)[1]


def _measure(job: Job, weights: dict[str, Tensor], pairs: Pairs, cache: PixelCache | None) -> Measurement:
    job.clip.model.load_state_dict(weights)
    with job.progress.clock("validation"):
        return measure(job.clip, pairs, cache)


def _place(candidate: Candidate) -> str:
    return f"epoch {candidate.epoch}" + ", averaged," * (candidate.kind == "average")


def _monitored(job: Job, candidate: Candidate) -> str:
    chooser = best_by(job.settings)
    return "" if chooser is None else f", {chooser.monitor} {candidate.figures[chooser.monitor]:.4f}"
