"""The work of one of the processes that train one run together."""

import json
import os
import signal
import sys
import threading
import time

from attune.config import check_settings
from attune.device import choose_device
from attune.errors import AttuneError, TrainingStopped
from attune.files import disk_may_fill, write_text
from attune.runs.folder import RunFolder
from attune.training.distributed import current_world, initialise, others_are_lost, shut_down
from attune.training.memory import SmallerPieces
from attune.training.processes import OUTCOME
from attune.training.stop import LAUNCHER, stop_requests
from attune.training.train import train


def train_worker(name: str, micro_batch_size: int | None = None) -> int:
    """Meets the others and trains with them. Returns the exit code; what came of it is in `OUTCOME`."""
    folder = RunFolder.open(name)
    with stop_requests():  # when one of them fails torchrun ends the others, who may have to say why
        threading.Thread(target=_stop_without, args=[int(os.environ[LAUNCHER])], daemon=True).start()
        try:
            initialise(choose_device(check_settings(folder.load().settings).devices, current_world().rank))
            with disk_may_fill(f"the run {folder.reference!r}"):
                outcome = json.loads(train(folder, micro_batch_size).model_dump_json(exclude={"id"}))
            tells, failed = current_world().is_main, False
        except SmallerPieces as error:
            tells, failed = True, True
            outcome = {"message": str(error), "smaller": error.size}
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
