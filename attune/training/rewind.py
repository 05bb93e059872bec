"""Where a run goes on: at its last checkpoint, or back at an earlier one with a lower learning rate."""

import math

import torch

from attune.training.checkpoints import Stateful
from attune.training.distributed import agree
from attune.training.guards import RATE_AFTER_FALL, first_check
from attune.training.job import Job
from attune.training.position import Candidate, Position


def save(job: Job, within_epoch: bool = False) -> None:
    """Writes the checkpoint a resumed run goes on from."""
    if job.world.is_main:
        job.position.history, job.position.progress = job.history.size, job.progress.state_dict()
        job.checkpoints.save(job.position.state_dict(), within_epoch, **_parts(job))


def restore(job: Job, back: bool = False) -> bool:
    """Puts the job back to its last checkpoint, or that of the last epoch's end; False if there is none."""
    state = job.checkpoints.restore(job.clip.device, back, **_parts(job))
    if state is None:
        return False
    tried = job.position.micro_batch_size
    job.position = Position.from_state(state)
    # What did not fit since that checkpoint does not fit now.
    sizes = [size for size in (tried, job.position.micro_batch_size) if size is not None]
    job.position.micro_batch_size = min(sizes, default=None)
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
