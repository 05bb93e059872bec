"""The choice of the weights a run exports: the best on validation of the start, the trained ones, and those between."""

from dataclasses import dataclass

from torch import Tensor

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import measure
from attune.metrics import mean_recall
from attune.models.lora import merge_lora
from attune.models.weights import DTYPES, load_weights, save_weights
from attune.training.average import between
from attune.training.job import Job

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Of the trained weights, the rest being the start's. Gains and forgetting change smoothly along this line (WiSE-FT,
arXiv:2109.01903), so a coarse grid finds what there is to find."""


@dataclass(frozen=True)
class Choice:
    """The chosen weights.

    Attributes:
        kind: `start`, `weights`, `average`, or `interpolated`.
        share: of the trained weights in them, 0 to 1.
        mean_recall: on the validation part.
    """

    kind: str
    share: float
    mean_recall: float


def choose(job: Job) -> Choice:
    """Picks the weights and writes them to `checkpoints/chosen.safetensors` in the artifact's precision.

    With `retention_data`, only weights that lose at most `retention_max_drop` on it can be chosen; the start always can.
    """
    if job.settings.lora_rank:
        merge_lora(job.clip.model)
    start, trained = (load_weights(path) for path in (job.checkpoints.start, job.checkpoints.best))
    best = job.position.best
    recalls = {0.0: job.position.start.mean_recall, 1.0: best.mean_recall}
    kept = 0.0
    if job.parts.retention is not None:
        kept = retention(job, start) - job.settings.retention_max_drop
    chosen = Choice("start", 0.0, recalls[0.0])
    for share in SHARES if best.kind != "start" else ():
        if share not in (0.0, 1.0) and not job.settings.interpolation:
            continue
        weights = between(start, trained, share)
        recall = recalls[share] if share in recalls else validation(job, weights)
        allowed = share == 0.0 or job.parts.retention is None or retention(job, weights) >= kept
        job.log(
            f"{share:.0%} of the way from the start: validation mean recall {recall:.4f}"
            + ("" if allowed else f", but it loses more than {job.settings.retention_max_drop:g} on retention_data"),
            kind="choice",
            share=share,
            mean_recall=recall,
        )
        if allowed and recall > chosen.mean_recall:
            chosen = Choice(best.kind if share == 1.0 else "interpolated", share, recall)
    dtype = DTYPES[job.settings.artifact_precision]
    save_weights(job.checkpoints.chosen, between(start, trained, chosen.share), dtype)
    job.log(
        f"chosen: {chosen.kind}, epoch {best.epoch if chosen.share else 0}, share {chosen.share:g}, validation mean recall "
        f"{chosen.mean_recall:.4f} ({recalls[0.0]:.4f} at the start)"
    )
    return chosen


def validation(job: Job, weights: dict[str, Tensor]) -> float:
    """Mean recall of these weights on the validation part."""
    return _recall(job, weights, job.parts.validation, job.cache)


def retention(job: Job, weights: dict[str, Tensor]) -> float:
    """Mean recall of these weights on the retention data; 0 if there is none."""
    if job.parts.retention is None or job.retention_cache is None:
        return 0.0
    return _recall(job, weights, job.parts.retention, job.retention_cache)


def _recall(job: Job, weights: dict[str, Tensor], pairs: Pairs, cache: PixelCache) -> float:
    job.clip.model.load_state_dict(weights)
    with job.progress.clock("validation"):
        return mean_recall(measure(job.clip, pairs, cache).metrics)
