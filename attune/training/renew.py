"""Running statistics of batch norms, taken anew for the weights a run ends with."""

import numpy as np
import torch

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.models.clip import Clip, evaluating
from attune.models.trainable import tower_is_frozen, trained_batch_norms
from attune.training.compare import is_clearly_behind
from attune.training.job import Job
from attune.training.position import Candidate
from attune.training.tried import Weights, keeps, measured, said

MOST_PICTURES = 4_000
"""A thousand and more give the statistics of all (Wu & Johnson 2021, section 3.2)."""

AT_ONCE = 256
"""Pictures: as many as are evaluated at once, whatever the training's batch, and enough for the variance of each piece."""


def renewed(job: Job, weights: Weights, found: Candidate, highest: Candidate, kept: float) -> tuple[Weights, Candidate]:
    """The chosen weights with their batch norms' statistics taken anew, unless that makes them clearly worse.

    Args:
        job: the run.
        weights: that were chosen.
        found: what they are on the validation part.
        highest: what the best of all that could be chosen is there.
        kept: what they must at least be on the retention data.

    Returns:
        Weights, and what they are on the validation part: as given, if there are no such statistics.
    """
    job.clip.model.load_state_dict(weights)
    with job.progress.clock("validation"):
        if job.cache is None or not renew_statistics(job.clip, job.parts.train, job.cache, job.settings.seed):
            return weights, found
    anew = {name: value.clone() for name, value in job.clip.model.state_dict().items()}
    after = measured(job, anew)
    taken = after.worth >= found.worth or not is_clearly_behind(after, highest)
    taken = taken and after.worth > job.position.start.worth and keeps(job, anew, kept)
    job.log(
        f"batch norms with statistics of unchanged pictures: {said(job, after)}" + ("" if taken else ", not taken"),
        kind="statistics",
        **{job.chosen_by: after.mean_recall},
    )
    return (anew, after) if taken else (weights, found)


@torch.no_grad()
def renew_statistics(clip: Clip, pairs: Pairs, cache: PixelCache, seed: int) -> bool:
    """Puts mean and variance over training pictures, as they are searched, in the place of running ones.

    Running statistics are of the last batches: of weights as they were before the last steps, averages of these of many
    before, and of changed pictures. What is evaluated is one set of weights on unchanged ones. ("Precise batch norm":
    Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3; for averaged weights Izmailov et al.
    2018, arXiv:1803.05407. torch's `update_bn` leaves dropout on, and takes frozen ones too.)

    Args:
        clip: the model; frozen batch norms keep what they have.
        pairs: whose pictures, and the matches of these.
        cache: their pixels or embeddings.
        seed: which pictures, of more than `MOST_PICTURES`.

    Returns:
        False if it has no such batch norm, or its image tower is frozen.
    """
    norms = trained_batch_norms(clip.model.visual)
    if not norms or tower_is_frozen(clip.model, "image"):
        return False
    pictures = cache.rows([*pairs.images, *(pairs.texts if pairs.kind.has_matches else ())])
    chosen = np.random.default_rng(seed).permutation(np.unique(pictures))[:MOST_PICTURES]
    momenta = [norm.momentum for norm in norms]
    with evaluating(clip.model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches, each as much
            norm.train()
        for rows in np.array_split(chosen, -(-len(chosen) // AT_ONCE)):
            pixels = torch.from_numpy(cache.pixels[np.sort(rows)]).to(clip.device)
            clip.model.encode_image(clip.normalise(pixels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return True
