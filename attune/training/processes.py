"""One training in several processes of one machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from attune.config import check_settings
from attune.device import choose_device
from attune.errors import AttuneError, TrainingError, TrainingStopped, error_from_name
from attune.files import disk_may_fill, write_text
from attune.runs.folder import RunFolder
from attune.schemas import TrainingResult
from attune.training.distributed import current_world, initialise, launch_command, others_are_lost, shut_down
from attune.training.memory import OutOfMemory
from attune.training.stop import LAUNCHER, stop_requests

OUTCOME = "outcome.json"


def train_in_processes(folder: RunFolder, processes: int) -> TrainingResult:
    """Starts the processes, waits for them, and returns what the main one found.

    If memory runs out in one of them, all begin again at the last checkpoint, with smaller pieces of the same batches: in a
    step that one has given up the others wait for it.

    Raises:
        TrainingError: what the first to fail raised, or that one of them was lost.
        TrainingStopped: if this process was asked to stop; the others stop with it.
    """
    found = _outcome(folder, processes)
    while "smaller" in found:
        folder.log(
            f"{found['message']}: {found['smaller']} at a time from the last checkpoint on",
            kind="memory",
            pairs=found["smaller"],
        )
        found = _outcome(folder, processes, found["smaller"])
    if "error" in found:
        raise error_from_name(found["error"], found["message"])
    return TrainingResult(**found)


def _outcome(folder: RunFolder, processes: int, *micro_batch_size: int) -> dict[str, Any]:
    """What the processes leave behind: the result, or the error of the one that knows why they failed."""
    outcome = folder.checkpoints / OUTCOME
    outcome.unlink(missing_ok=True)
    with stop_requests() as stop:
        command = launch_command(processes, ["train-worker", folder.reference, *map(str, micro_batch_size)])
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
            raise TrainingStopped("Training was asked to stop. Start the run again to go on from its last checkpoint")
        raise TrainingError(
            f"One of the {processes} training processes was lost (exit code {launched.returncode}); its output is in the "
            "run folder, in train.log. Start the run again to go on from its last checkpoint"
        )
    found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
    outcome.unlink()
    return found


def train_worker(name: str, micro_batch_size: int | None = None) -> int:
    """The work of one of the processes: it meets the others and trains with them. Returns the exit code."""
    from attune.training.train import train  # which imports this module

    folder = RunFolder.open(name)
    with stop_requests():  # when one of them fails torchrun ends the others, who may have to say why
        threading.Thread(target=_stop_without, args=[int(os.environ[LAUNCHER])], daemon=True).start()
        try:
            initialise(choose_device(check_settings(folder.load().settings).devices, current_world().rank))
            with disk_may_fill(f"the run {folder.reference!r}"):
                outcome = json.loads(train(folder, micro_batch_size).model_dump_json(exclude={"id"}))
            tells, failed = current_world().is_main, False
        except OutOfMemory as error:
            tells, failed = True, True
            outcome = {"message": str(error), "smaller": error.smaller}
        except AttuneError as error:
            failed = True
            # The main process stops last, once all is saved. Who only lost another one leaves it to that one to say why.
            tells = current_world().is_main if isinstance(error, TrainingStopped) else not others_are_lost(error)
            outcome = {"error": type(error).__name__, "message": str(error)}
        if failed:
            sys.stderr.write(f"{outcome['message']}\n")
        if tells:
            write_text(folder.checkpoints / OUTCOME, json.dumps(outcome))
        shut_down()
    return int(failed)


def _stop_without(launcher: int) -> None:
    """Asks this process to stop once the one that started the training is gone: killed, it could not ask itself.

    Nobody would hear what is found, and the run's lock is free: the next to take it would train beside this one.
    """
    while True:
        time.sleep(1)
        try:
            os.kill(launcher, 0)  # 0 is no signal, only the question whether it could be sent
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
