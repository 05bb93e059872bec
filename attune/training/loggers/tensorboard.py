"""TensorBoard's event files in the run's folder."""

from collections.abc import Sequence
from datetime import datetime

from attune.callback_settings import TensorBoardLogger
from attune.schemas import RunEvent
from attune.training.loggers.points import points_of
from attune.training.loggers.sink import Ending, Facts


class TensorBoard:
    """Writes scalars, and the settings as a table of text.

    What its files hold is read when it begins: a point is known by its name, its step and its time.
    """

    def __init__(self, logger: TensorBoardLogger, facts: Facts) -> None:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        from torch.utils.tensorboard import SummaryWriter

        self._steps_per_epoch = facts.steps_per_epoch
        path = facts.folder.loggers / logger.log_dir
        self._there: set[tuple[str, int, float]] = set()
        texts = set[str]()
        for file in sorted(path.glob("events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(file)).Load():
                self._there |= {(value.tag, event.step, event.wall_time) for value in event.summary.value}
                texts |= {value.tag for value in event.summary.value}
        self._writer = SummaryWriter(str(path))
        if not any(tag.startswith("settings") for tag in texts):
            rows = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in facts.params.items()]
            self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def send(self, events: Sequence[RunEvent]) -> None:
        """Writes the points that are not there, down to the disk."""
        for event in events:
            step, figures = points_of(event, self._steps_per_epoch)
            moment = datetime.fromisoformat(event.time).timestamp()
            for name, value in figures.items():
                if (name, step, moment) not in self._there:
                    self._there.add((name, step, moment))
                    self._writer.add_scalar(name, value, step, walltime=moment)
            if event.kind == "result" and ("result/text_summary", step, moment) not in self._there:
                self._writer.add_text("result", event.message, step, walltime=moment)
        self._writer.flush()

    def end(self, ending: Ending) -> None:
        """Closes the file."""
        del ending
        self._writer.close()
