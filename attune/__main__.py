"""One stage of a run in a process of its own: `python -m attune train RUN`; RUN is `name` or `experiment/name`.

The executors start it: a crash or an out-of-memory kill ends one run and not the service, and a GPU's memory is free
when the process ends. It exits with 1 if the stage failed, the reason is in the run; and with 75 if it was asked to stop.
It stops as well when its run is cancelled, or the executor that started it is gone.
"""

import gc
import logging
import os
import signal
import sys
import threading
import time

from attune.garbage import importing

with importing():
    from attune.allocator import keep_memory
    from attune.errors import AttuneError, TrainingStopped
    from attune.runs.folder import RunFolder
    from attune.stages import STAGES, run_stage
    from attune.training.stop import LAUNCHER

WORKER = "train-worker"
"""One of several processes that train one run; `attune.training.processes` starts them."""
LOOK_SECONDS = 0.25
GRACE_SECONDS = 60.0
"""From SIGTERM, after which training writes a checkpoint, to SIGKILL."""


def main() -> int:
    """Runs the stage that the command line names."""
    keep_memory()
    if len(sys.argv) in (3, 4) and sys.argv[1] == WORKER:
        with importing():
            from attune.training.worker import train_worker
        return train_worker(sys.argv[2], *map(int, sys.argv[3:]))
    if len(sys.argv) != 3 or sys.argv[1] not in STAGES:
        print(f"usage: python -m attune {{{','.join(STAGES)}}} RUN", file=sys.stderr)
        return 2
    stage, reference = sys.argv[1:]
    try:
        folder = RunFolder.open(reference)
        threading.Thread(target=_end_when_due, args=[folder], daemon=True).start()
        run_stage(stage, reference)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return os.EX_TEMPFAIL
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception:
        logging.exception("stage %s of run %s", stage, reference)
        return 1
    return 0


def _end_when_due(folder: RunFolder) -> None:
    """Ends this process when its run is to be cancelled, or nobody is left to hear of it; who started it may be gone."""
    launcher = os.environ.get(LAUNCHER)
    while launcher in (None, str(os.getppid())) and not folder.cancel_mark.exists():
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    code = main()
    gc.freeze()  # or all modules would be searched once more when the process ends
    sys.exit(code)
