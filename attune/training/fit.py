"""The training loop: epochs of steps, each epoch measured on the validation part."""

import math

import numpy as np

from attune.figures import CHOSEN_BY
from attune.training.callbacks import watch
from attune.training.candidates import keep, measure_candidate
from attune.training.checks import check_data, check_pairs, estimate_run
from attune.training.continuing import load_optimizer, origin
from attune.training.epoch import train_epoch
from attune.training.guards import is_chance, is_uncorrelated, is_unsorted
from attune.training.job import Job
from attune.training.monitor import early_stopping, epochs_in_vain
from attune.training.position import Candidate
from attune.training.rewind import is_much_worse, restore, roll_back, save, start_over


def fit(job: Job) -> None:
    """Trains from the last checkpoint, or from the start, to the last epoch or until it is clearly no longer getting better.

    Leaves `checkpoints/best.safetensors`: the weights that are best by mean validation recall or by MAP@R of single items,
    see `Position.best`; those of the highest Spearman's correlation where captions have scores, or of the figure that a
    `BestModelCheckpoint` names. The starting weights are candidates too: if nothing beats them, they are the result.

    Raises:
        TrainingError: if a guard gives up; the message says what was found and what to do.
        TrainingStopped: if it was asked to stop; the next `fit` goes on from there.
    """
    resumed = restore(job)
    job.history.resume(job.position.history if resumed else None)
    if resumed and job.position.progress:
        job.progress.load_state_dict(job.position.progress)
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
    job.guards.check_end(job.step)


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
    # A perfect one cannot be beaten: later ones that are as good bring nothing.
    last = position.highest if position.highest.worth >= 1 else position.best
    in_vain = position.epoch - 1 - last.epoch
    if other is not None:
        patience, in_vain = other.patience, epochs_in_vain(position.candidates, other)
    return position.epoch > job.recipe.epochs or bool(patience and in_vain >= patience)
