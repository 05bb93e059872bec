"""The figures of a candidate on the validation part, and what follows from the one that is monitored."""

import math
from itertools import groupby

import torch

from attune.callback_settings import BestModelCheckpoint, EarlyStopping
from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement, image_of_text
from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.metrics import worth
from attune.settings import FinetuningSettings
from attune.training.position import Candidate


def figures_of(measurement: Measurement, pairs: Pairs, logit_scale: float, batch_size: int) -> dict[str, float]:
    """What may be monitored of a model: `mean_recall`, `val_loss` and the figures of the measurement.

    Where captions have scores, these are all; single items have `map@r` in place of both.
    """
    if pairs.is_graded:
        return measurement.metrics
    name, value = worth(measurement.metrics)
    if pairs.kind.is_single:
        return {name: value, **measurement.metrics}
    return {name: value, "val_loss": val_loss(measurement, pairs, logit_scale, batch_size), **measurement.metrics}


def val_loss(measurement: Measurement, pairs: Pairs, logit_scale: float, batch_size: int) -> float:
    """CLIP's loss of the validation part, whatever the run trains with: losses over classes know no captions of it.

    Args:
        measurement: embeddings.
        pairs: that they are of.
        logit_scale: the model's temperature.
        batch_size: pictures that are compared with each other, each with all of its captions, in order.
    """
    images, texts = torch.from_numpy(measurement.images), torch.from_numpy(measurement.texts)
    owner = torch.from_numpy(image_of_text(pairs))
    count = max(1, round(len(images) / batch_size))  # pieces of about the same size: a small one would be easy
    total = 0.0
    for rows in torch.arange(len(images)).tensor_split(count):
        mine = (owner >= rows[0]) & (owner <= rows[-1])
        positives = rows[:, None] == owner[mine][None, :]
        batch = EmbeddedBatch(images[rows], texts[mine], torch.tensor(logit_scale), positives=positives)
        total += clip_loss(batch).item() * len(rows)
    return total / len(images)


def best_by(settings: FinetuningSettings) -> BestModelCheckpoint | None:
    """What chooses the best weights, if not mean recall does."""
    return settings.callback_of(BestModelCheckpoint)


def early_stopping(settings: FinetuningSettings) -> EarlyStopping | None:
    """What ends training early, if not `early_stopping_patience` does."""
    return settings.callback_of(EarlyStopping)


def monitored(settings: FinetuningSettings) -> list[str]:
    """The figures that something follows from, besides mean recall."""
    return sorted({one.monitor for one in (best_by(settings), early_stopping(settings)) if one is not None})


def note(candidate: Candidate, figures: dict[str, float], settings: FinetuningSettings) -> None:
    """Keeps of a candidate what something follows from.

    Args:
        candidate: that was measured.
        figures: of it, those that are monitored among them.
        settings: of the run.
    """
    candidate.figures = {name: figures.get(name, math.nan) for name in monitored(settings)}
    chooser = best_by(settings)
    if chooser is not None:
        candidate.figure = chooser.sign * candidate.figures[chooser.monitor]


def epochs_in_vain(candidates: list[Candidate], callback: EarlyStopping) -> int:
    """How many epochs in a row, up to the last one, have brought nothing.

    An epoch's figure is the best of its candidates'. It brings something if it is better than all before, the start's among
    them, by more than `min_delta`, and better than `baseline`.
    """
    best, count = -math.inf, 0
    for epoch, ones in groupby(candidates, key=lambda candidate: candidate.epoch):
        values = [callback.sign * one.figures.get(callback.monitor, math.nan) for one in ones]
        value = max((value for value in values if not math.isnan(value)), default=-math.inf)
        is_better = value > best + callback.min_delta
        if is_better:
            best = value
        if epoch and is_better and (callback.baseline is None or value > callback.sign * callback.baseline):
            count = 0
        elif epoch:
            count += 1
    return count
