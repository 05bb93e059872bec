"""Training, top to bottom: prepare, fit, choose."""

import math

from attune.config import check_settings
from attune.device import check_processes
from attune.runs.folder import RunFolder
from attune.schemas import TrainingResult
from attune.training.choose import choose
from attune.training.continuing import save_optimizer
from attune.training.distributed import current_world
from attune.training.fit import fit
from attune.training.job import Job, prepare
from attune.training.loggers.follow import loggers
from attune.training.processes import train_in_processes
from attune.training.stop import stop_requests


def train(folder: RunFolder, micro_batch_size: int | None = None) -> TrainingResult:
    """Trains a run's model from where it left off, and chooses its best weights.

    Leaves `checkpoints/chosen.safetensors`, never worse on the validation part than the starting weights.

    Args:
        folder: of the run.
        micro_batch_size: pictures in memory at once, where those of the settings or of a checkpoint did not fit.

    Raises:
        SettingsError: if there are more processes than devices for them.
        TrainingError: if a guard stopped it; the message says why and what to do.
        TrainingStopped: if it was asked to stop; it goes on from there when it is called again.
    """
    settings = check_settings(folder.load().settings)
    processes = settings.processes if settings.processes != "auto" else max(1, len(settings.gpus))
    if processes > current_world().size:
        check_processes(processes, settings.devices)
        return train_in_processes(folder, processes)
    # Until this is done SIGTERM ends the process at once: nothing is lost.
    job = prepare(folder, settings, micro_batch_size=micro_batch_size)
    with stop_requests() as job.stop, loggers(job):
        fit(job)
        return finish(job)


def finish(job: Job) -> TrainingResult:
    """Chooses the weights and sums up; only the main process has anything to do."""
    if not job.world.is_main:
        return TrainingResult()
    if not job.settings.lora_rank:  # low-rank changes are merged in the end, and begin anew in the next run
        save_optimizer(job.folder, job.clip.model, job.optimizer)
    job.free_state()
    choice = choose(job)
    position, progress = job.position, job.progress
    losses = [one.loss for one in position.candidates if one.kind == "weights"]
    shares = progress.shares()
    job.log("time: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()), kind="time", **shares)
    return TrainingResult(
        steps=job.step,
        epochs=position.epoch - 1,
        seconds=round(progress.total_seconds(), 3),
        pairs_per_second=round(progress.pairs_per_second(), 1),
        final_loss=next((loss for loss in reversed(losses) if math.isfinite(loss)), 0.0),
        best_epoch=position.best.epoch if choice.share else 0,
        start_recall=position.start.mean_recall,
        best_recall=choice.mean_recall,
        device=job.device,
        precision=job.precision,
        chosen=choice.kind,
        chosen_share=choice.share,
        recipe={**job.recipe.record(), "micro_batch_size": position.micro_batch_size},
        time_shares=shares,
    )
