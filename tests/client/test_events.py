"""A run's history is followed while it is written: every line once, from any point, to its end."""

import random
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from attune.files import write_text
from attune.runs.events import append_event
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun
from client import AttuneClient
from client.events import get_events

LINES = 1500  # more than a page


def write_run(folder: Path, state: str) -> None:
    run = FinetuningRun(name=folder.name, state=state, created_at="2026-01-01T00:00:00+00:00")
    write_text(folder / "run.json", run.model_dump_json())


@pytest.fixture
def folder(home: Path) -> Path:
    """The folder of a run at work."""
    path = home / "runs" / "default" / f"run-{uuid4().hex[:8]}"
    write_run(path, "TRAINING")
    return path


def test_every_line_is_seen_once_while_it_is_written(attune: AttuneClient, folder: Path) -> None:
    pause = random.Random(3)

    def write() -> None:
        for number in range(1, LINES + 1):
            append_event(folder, {"time": "t", "kind": "log", "message": f"line {number}"})
            if number % 100 == 0:
                time.sleep(pause.uniform(0, 0.2))
        append_event(folder, {"time": "t", "kind": "state", "message": "state FINISHED"})
        write_run(folder, "FINISHED")

    append_event(folder, {"time": "t", "kind": "state", "message": "state TRAINING"})
    writer = threading.Thread(target=write)
    with RunFolder(folder).locked("stage"):  # a process works on it: the service takes up those on which none does
        writer.start()
        seen = list(attune.get_run(folder.name).stream_logs())
        writer.join()

    assert seen == ["t state TRAINING", *(f"t line {number}" for number in range(1, LINES + 1)), "t state FINISHED"]
    assert list(attune.get_run(folder.name).stream_logs(after=LINES)) == [f"t line {LINES}", "t state FINISHED"]
    assert len(get_events(attune._transport, folder.name)) == LINES + 2


def test_a_run_that_is_at_its_end_and_has_no_history_is_not_waited_for(attune: AttuneClient, folder: Path) -> None:
    write_run(folder, "CANCELLED")
    assert list(attune.get_run(folder.name).stream_events()) == []
