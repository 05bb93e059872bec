"""The peer: open_clip's own trainer (`open_clip_train`, part of the package open_clip_torch), on the same pictures.

It reads a CSV of picture files. Its csv data needs `pandas`, which open_clip_torch installs only as an extra.
"""

import csv
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from PIL import Image

from attune.data import store
from attune.data.images import decode
from attune.data.pairs import Pairs
from benchmarks.pace import Mark
from benchmarks.processes import Watched, watch

_LINE = re.compile(r"Train Epoch: (\d+) \[\s*(\d+)/(\d+)")


@dataclass(frozen=True)
class PeerRun:
    """One run of open_clip's trainer.

    Attributes:
        watched: the process.
        marks: a moment for each step that was logged.
        weights: the last checkpoint; None if none was to be kept.
    """

    watched: Watched
    marks: list[Mark]
    weights: Path | None


def write_csv(pairs: Pairs, folder: Path, size: int | None = None) -> Path:
    """The pairs as open_clip's trainer reads them: picture files and a CSV with a row for each caption.

    JPEGs are written as they are. Other pictures are written as Attune sees them, turned, in RGB and on white, as PNG:
    the trainer knows nothing of transparency.

    Args:
        pairs: of a pushed dataset.
        folder: for the CSV and its pictures.
        size: pixels; if given, all pictures are squashed to this square first, as Finetuner's users did.

    Returns:
        The CSV's path.
    """
    files: dict[str, Path] = {}
    wanted = set(pairs.images)
    folder.mkdir(parents=True, exist_ok=True)
    for batch in store.iter_images(pairs.fingerprint):
        for digest, data in batch:
            if digest not in wanted or digest in files:
                continue
            files[digest] = folder / digest
            if size is None and data.startswith(b"\xff\xd8"):
                files[digest] = files[digest].with_suffix(".jpg")
                files[digest].write_bytes(data)
                continue
            picture = decode(data)
            if size is not None:
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            files[digest] = files[digest].with_suffix(".png")
            picture.save(files[digest])
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for digest, captions in zip(pairs.images, pairs.captions, strict=True):
            writer.writerows([files[digest].resolve(), caption] for caption in captions)
    return path


def train(
    folder: Path,
    name: str,
    pairs_csv: Path,
    options: Sequence[str],
    device: str,
    *,
    epochs: int,
    batch_size: int,
    log_every: int = 100,
    keep_weights: bool = True,
) -> PeerRun:
    """Runs `python -m open_clip_train.main` to its end.

    Args:
        folder: working folder; the run's log goes there.
        name: of the run.
        pairs_csv: what `write_csv` wrote.
        options: further options of the trainer; what is not given is at its default.
        device: `cpu` or `cuda`.
        epochs: passes over the CSV's rows.
        batch_size: rows a step; the rows that are left over at the end of an epoch are dropped.
        log_every: steps between two marks.
        keep_weights: whether the last epoch's checkpoint is written.

    Raises:
        RuntimeError: if the trainer fails.
    """
    logs = folder / "logs"
    shutil.rmtree(logs / name, ignore_errors=True)  # of a run that was broken off: the trainer would refuse the name
    command = [sys.executable, "-m", "open_clip_train.main", "--train-data", str(pairs_csv), "--dataset-type", "csv"]
    command += ["--device", device, "--epochs", str(epochs), "--batch-size", str(batch_size)]
    command += ["--log-every-n-steps", str(log_every), "--name", name, "--save-frequency", "0"]
    command += ["--logs", str(logs) if keep_weights else "none", *options]
    folder.mkdir(parents=True, exist_ok=True)
    # Its data workers are forked after the tokenizer was used: without this, Hugging Face's warns for each.
    watched = watch(command, folder, device, {"TOKENIZERS_PARALLELISM": "false"})
    weights = logs / name / "checkpoints" / f"epoch_{epochs}.pt"
    return PeerRun(watched, read_marks(watched.lines, batch_size), weights if keep_weights else None)


def read_marks(lines: Sequence[tuple[float, str]], batch_size: int) -> list[Mark]:
    """The steps that the trainer's log tells of.

    Args:
        lines: Unix time and text of each line.
        batch_size: rows a step.

    Example:
        The line ``Train Epoch: 0 [40/60 (67%)] ...`` with batches of 20 is the end of step 2.
    """
    found = ((moment, _LINE.search(text)) for moment, text in lines)
    return [Mark(moment, int(match[1]), int(match[2]) // batch_size) for moment, match in found if match]


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Puts a checkpoint of the trainer into a model of the same architecture.

    Raises:
        RuntimeError: if a weight is missing or left over.
    """
    open_clip.load_checkpoint(model, str(path), strict=True)
