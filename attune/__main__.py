"""One stage of a run in a process of its own: `python -m attune train RUN`.

The executors start it: a crash or an out-of-memory kill ends one run and not the service, and a GPU's memory is free
when the process ends. It exits with 1 if the stage failed; the reason is in the run.
"""

import logging
import sys

from attune.errors import AttuneError
from attune.runs import RunFolder
from attune.stages import STAGES, fail, run_stage

WORKER = "train-worker"
"""One of several processes that train one run; `attune.training.processes` starts them."""


def main() -> int:
    """Runs the stage that the command line names."""
    if len(sys.argv) == 3 and sys.argv[1] == WORKER:
        from attune.training.processes import train_worker

        return train_worker(sys.argv[2])
    if len(sys.argv) != 3 or sys.argv[1] not in STAGES:
        print(f"usage: python -m attune {{{','.join(STAGES)}}} RUN", file=sys.stderr)
        return 2
    stage, name = sys.argv[1:]
    try:
        run_stage(stage, name)
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        # A mistake of ours, or a full disk: the run must still say why it ended.
        logging.exception("stage %s of run %s", stage, name)
        fail(RunFolder.open(name), f"{stage} stopped unexpectedly: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
