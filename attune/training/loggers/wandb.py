"""Figures as Weights & Biases' files in the run's folder, or on its server."""

import os
from collections.abc import Sequence

from attune.callback_settings import WandBLogger
from attune.schemas import RunEvent
from attune.training.loggers.check import check_wandb, wandb_address
from attune.training.loggers.points import points_of
from attune.training.loggers.sink import Ending, Facts, Kept

SECONDS = 30
"""To reach the server."""
FLUSH_SECONDS = 1.0
"""Lines that are not written when the process is killed are lost: they are told once."""


class WandB:
    """Writes one run of Weights & Biases; what was told before a resume is not told again.

    Offline, each process leaves a folder `wandb/offline-run-*`, all of one run: `wandb sync --append` sends them in order.
    """

    def __init__(self, logger: WandBLogger, facts: Facts) -> None:
        check_wandb(logger)
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # else its own mistakes are reported to its makers
        import wandb

        run = facts.folder.load()
        folder = facts.folder.loggers
        folder.mkdir(parents=True, exist_ok=True)
        self._steps_per_epoch = facts.steps_per_epoch
        self._kept = Kept(folder / "wandb.json")
        settings = wandb.Settings(
            base_url=wandb_address(),
            console="off",
            disable_code=True,
            disable_git=True,
            init_timeout=SECONDS,
            save_code=False,
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
        )
        self._run = wandb.init(
            project=logger.project,
            entity=logger.entity,
            name=logger.name or run.reference,
            group=logger.group,
            tags=list(logger.tags) or None,
            notes=run.description or None,
            mode=logger.mode,
            id=self._kept.key,
            resume="allow",
            dir=str(folder),
            config=facts.params,
            settings=settings,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def send(self, events: Sequence[RunEvent]) -> None:
        """Adds a line of figures for each new event; W&B counts lines by the event's number, so that it grows for ever."""
        for event in events:
            step, figures = points_of(event, self._steps_per_epoch)
            if not figures or not self._kept.take(event):
                continue
            self._run.log({"step": step, **figures}, step=event.number)
            if event.kind == "result":
                self._run.summary["result"] = event.message

    def end(self, ending: Ending) -> None:
        """Writes what is left; a run that was stopped counts as one that crashed until it goes on."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)
