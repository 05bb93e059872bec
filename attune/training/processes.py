"""One training in several processes of one machine."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from attune.errors import TrainingError, TrainingStopped, error_from_name
from attune.runs.folder import RunFolder
from attune.schemas import TrainingResult
from attune.training.distributed import launch_command
from attune.training.stop import LAUNCHER, stop_requests

OUTCOME = "outcome.json"
"""Among the checkpoints: what came of the training, by the process that knows."""
STOPPED = "Training was asked to stop. Start the run again to go on from its last checkpoint"


def train_in_processes(folder: RunFolder, processes: int) -> TrainingResult:
    """Starts the processes, waits for them, and returns what the main one found.

    If memory runs out in one of them, all begin again at the last checkpoint, with smaller pieces of the same batches: in a
    step that one has given up the others wait for it.

    Raises:
        TrainingError: what the first to fail raised, or that one of them was lost.
        TrainingStopped: if this process was asked to stop; the others stop with it.
    """
    with stop_requests() as stop:
        found = _outcome(folder, processes, stop)
        while "smaller" in found:
            if stop():
                raise TrainingStopped(STOPPED)
            folder.log(
                f"{found['message']}: {found['smaller']} at a time from the last checkpoint on",
                kind="memory",
                pairs=found["smaller"],
            )
            found = _outcome(folder, processes, stop, found["smaller"])
    if "error" in found:
        raise error_from_name(found["error"], found["message"])
    return TrainingResult(**found)


def _outcome(
    folder: RunFolder, processes: int, stop: Callable[[], bool], micro_batch_size: int | None = None
) -> dict[str, Any]:
    """What one launch of the processes comes to, by the one that knows.

    Args:
        folder: of the run.
        processes: how many.
        stop: tells whether training was asked to stop.
        micro_batch_size: pairs at a time for each, where those of settings and checkpoint did not fit.

    Returns:
        The fields of a `TrainingResult`; or `error`, its class, and `message`; or `smaller`, the size to try again with, and
        `message`.

    Raises:
        TrainingError, TrainingStopped: if none of them could say.
    """
    outcome = folder.checkpoints / OUTCOME
    outcome.unlink(missing_ok=True)
    size = [] if micro_batch_size is None else [str(micro_batch_size)]
    command = launch_command(processes, ["train-worker", folder.reference, *size])
    launched = subprocess.Popen(command, env={**os.environ, LAUNCHER: str(os.getpid())})
    passed_on = False
    while launched.poll() is None:
        try:
            launched.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            if stop() and not passed_on:  # once: torchrun would give up waiting for its processes at the second time
                launched.send_signal(signal.SIGTERM)
                passed_on = True
    if not outcome.exists():
        if stop():
            raise TrainingStopped(STOPPED)
        raise TrainingError(
            f"One of the {processes} training processes was lost (exit code {launched.returncode}); its output is in the "
            "run folder, in train.log. Start the run again to go on from its last checkpoint"
        )
    found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
    outcome.unlink()
    return found
