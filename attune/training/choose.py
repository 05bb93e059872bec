"""The choice of the weights a run exports, on validation: the start's, the trained ones, or those between."""

from dataclasses import dataclass

from attune.callback_settings import WiSEFTCallback
from attune.models.lora import merge_lora
from attune.models.weights import DTYPES, load_weights, save_weights
from attune.training.average import between
from attune.training.compare import is_clearly_behind
from attune.training.job import Job
from attune.training.position import Candidate
from attune.training.renew import renewed
from attune.training.tried import Weights, keeps, measured, retention, said

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
    that a `BestModelCheckpoint` names. Statistics of batch norms are then taken anew. A `WiSEFTCallback` fixes the share, as
    it is, and the start is the only other choice. With `retention_data`, only weights that lose at most `retention_max_drop`
    on it can be chosen; the start always can.
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
    kept = retention(job, start) - job.settings.retention_max_drop
    as_good = shares_as_good(job, start, trained, kept) if best.kind != "start" else {}
    share = largest(as_good) if as_good else 0.0
    weights, found = between(start, trained, share), as_good.get(share, first)
    if share and fixed is None:
        weights, found = renewed(job, weights, found, highest_of(as_good), kept)
    if fixed is not None and fixed.alpha and not share:
        job.log(
            f"WiSEFTCallback: the start is exported, not the share of {fixed.alpha:g} that was asked for, which is worse"
        )
    save_weights(job.checkpoints.chosen, weights, DTYPES[job.settings.artifact_precision])
    kind = "interpolated" if 0 < share < 1 else best.kind if share else "start"
    chosen, name = Choice(kind, share, found.mean_recall), job.chosen_by
    job.log(
        f"chosen: {kind}, epoch {best.epoch if share else 0}, share {share:g}, validation {name.replace('_', ' ')} "
        f"{found.mean_recall:.4f} ({first.mean_recall:.4f} at the start)",
        kind="result",
        share=share,
        best_epoch=best.epoch if share else 0,
        **{name: found.mean_recall, f"start_{name}": first.mean_recall},
        steps=job.step,
    )
    return chosen


def shares_as_good(job: Job, start: Weights, trained: Weights, kept: float) -> dict[float, Candidate]:
    """What the shares that may be chosen are on the validation part, the largest first.

    Args:
        job: the run.
        start: weights it began with.
        trained: the best weights of its epochs.
        kept: what a share must at least be on the retention data.

    Returns:
        Those that are better than the start; of a share that was asked for, as good.
    """
    fixed, first = job.settings.callback_of(WiSEFTCallback), job.position.start
    known, found = {0.0: first, 1.0: job.position.best}, dict[float, Candidate]()
    shares: tuple[float, ...] = SHARES if job.settings.interpolation else (1.0, 0.0)
    if fixed is not None:
        shares = (fixed.alpha, 0.0) if fixed.alpha else (0.0,)
    for share in shares:
        weights = between(start, trained, share)
        one = known[share] if share in known else measured(job, weights)
        allowed = share == 0.0 or keeps(job, weights, kept)
        job.log(
            f"{share:.0%} of the way from the start: {said(job, one)}"
            + ("" if allowed else f", but it loses more than {job.settings.retention_max_drop:g} on retention_data"),
            kind="choice",
            share=share,
            **{job.chosen_by: one.mean_recall},
        )
        if allowed and share and (one.worth > first.worth or (fixed is not None and one.worth == first.worth)):
            found[share] = one
    return found


def largest(found: dict[float, Candidate]) -> float:
    """The largest of these shares, given in falling order, that is not clearly behind the highest."""
    highest = highest_of(found)
    return next(share for share, one in found.items() if one is highest or not is_clearly_behind(one, highest))


def highest_of(found: dict[float, Candidate]) -> Candidate:
    """The best of these, by share, on the validation part."""
    return max(found.values(), key=lambda candidate: candidate.worth)


def _place(candidate: Candidate) -> str:
    return f"epoch {candidate.epoch}" + ", averaged," * (candidate.kind == "average")
