"""Attune's side: its stages as the service runs them, each in a process of its own, on pushed data."""

import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attune.data import uploads
from attune.data.pixels import open_pixels
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, TrainingExample
from benchmarks.pace import Mark
from benchmarks.processes import Watched, watch


def use_home(folder: Path) -> None:
    """Keeps this process's datasets and runs, and those of the processes it starts, in a folder of their own."""
    os.environ["ATTUNE_HOME"] = str(folder)


def push(name: str, examples: Sequence[TrainingExample]) -> str:
    """Stores examples as a dataset; returns its fingerprint.

    Raises:
        ValueError: if any example is rejected: a benchmark's peers would then train on other data.
    """
    batches = [uploads.add_batch(name, name, examples[start : start + 64]) for start in range(0, len(examples), 64)]
    report = uploads.commit(name, name, [key for batch in batches for key in batch.batches])
    if report.rejected:
        first = report.problems[0]
        raise ValueError(f"{report.rejected} examples of {name} were rejected, first {first.source}: {first.advice}")
    return report.fingerprint


def decode_seconds(model: str, fingerprint: str) -> float:
    """Seconds it takes to decode and resize all pictures of a dataset, once, for all its runs with this size."""
    clip = load_clip(model)
    start = time.monotonic()
    open_pixels(fingerprint, clip.preprocess, clip.resize)
    return time.monotonic() - start


def run(name: str, settings: dict[str, Any], stages: Sequence[str], device: str) -> tuple[RunFolder, dict[str, Watched]]:
    """Makes a run and takes it through stages.

    Args:
        name: of the run.
        settings: see `attune.settings.FinetuningSettings`; what is not given is at its default.
        stages: of `validate, train, evaluate, export`, in this order.
        device: `cpu` or `cuda`.

    Returns:
        The run's folder, and what was seen of each stage's process.

    Raises:
        RuntimeError: if a stage fails.
    """
    folder = RunFolder.create(FinetuningRun(name=name, settings=settings))
    place = Path(__file__).parents[1]
    command = [sys.executable, "-m", "attune"]
    return folder, {stage: watch([*command, stage, name], place, device) for stage in stages}


def read_marks(folder: RunFolder, steps: int) -> list[Mark]:
    """The steps that a run's history tells of, about one a second.

    Args:
        folder: of the run.
        steps: of an epoch.
    """
    found = []
    for event in folder.events():
        if event.kind == "progress":
            epoch = int(event.values["epoch"])
            step = int(event.values["step"]) - (epoch - 1) * steps  # counted over the whole run
            found.append(Mark(datetime.fromisoformat(event.time).timestamp(), epoch, step))
    return found
