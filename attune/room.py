"""What a run will need at least, known before it starts: room on the disk, and memory."""

import json
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attune.callback_settings import TrainingCheckpoint
from attune.config import check_settings
from attune.data import store
from attune.device import devices_of
from attune.errors import SettingsError
from attune.figures import say_size
from attune.kinds import TOWERS, Tower
from attune.models.clip import config_of
from attune.models.hub import cached_folder
from attune.models.lora import add_lora
from attune.models.mlp import EmbeddingTower
from attune.models.options import changed_config, sized
from attune.models.shell import shell
from attune.models.source import find_model
from attune.models.trainable import choose_trainable, tower_is_frozen
from attune.optimizers import OPTIMIZERS
from attune.runs.folder import runs_folder
from attune.runs.models import locate
from attune.schemas import FinetuningRun
from attune.service.storage import check_room
from attune.settings import FinetuningSettings
from attune.training.estimate import FLOAT_BYTES
from attune.training.recipe import MOST_AUTO_EPOCHS


class Counts(NamedTuple):
    """What of a model decides how much it takes.

    Attributes:
        weights: bytes of its weights in fp32.
        trainable: bytes of those among them that training changes.
        masks: bytes of what it keeps in memory besides and writes to no file, as the attention masks of a Swin.
        pixels: bytes of one picture as it takes them, or of an embedding in its place.
    """

    weights: int
    trainable: int
    masks: int
    pixels: int


def check_fits(run: FinetuningRun, beside: Sequence[FinetuningRun] = ()) -> None:
    """Passes if the disk and the machine's memory can hold what the run will need at least; in well under a second.

    A model that is, or whose text tower is, yet to be fetched from the Hugging Face hub is let through: its size is not
    known before.

    Args:
        run: that is to be submitted, or to start.
        beside: runs at work, which will write as well.

    Raises:
        StorageFull: if it does not fit on the disk, or into the quota.
        SettingsError: if weights, gradients and optimizer state alone are more than the memory there is.
        ModelError: if there is no such model.
    """
    settings = check_settings(run.settings)
    counts = count(settings)
    if counts is None:
        return
    _check_memory(settings, counts)
    others = [disk_needed(other, found) for other in beside if (found := count(check_settings(other.settings)))]
    what = f"The run {run.reference!r}" + f", with the {len(others)} at work," * bool(others)
    check_room(disk_needed(run, counts) + sum(others), what)


def disk_needed(run: FinetuningRun, counts: Counts) -> int:
    """Bytes that a run will still write, at the moment when it needs most.

    A checkpoint is written beside the one before and takes its place; at the end there are the chosen weights, the
    optimizer's moments and the artifact as well. What the run folder holds already is not counted again.

    Args:
        run: as it is now.
        counts: of its model.
    """
    settings = check_settings(run.settings)
    pixels = sum(_pixels_needed(fingerprint, pictures, counts) for fingerprint, pictures in _datasets(run, settings))
    if not settings.trains:
        return pixels
    weights, trainable = counts.weights, counts.trainable
    moments = OPTIMIZERS[settings.optimizer].moments * trainable
    last = weights + moments + (trainable if settings.ema_decay != 0 else 0)
    chosen = weights // (2 if settings.artifact_precision == "fp16" else 1)
    start_and_best = 2 * weights
    epochs = settings.epochs if settings.epochs != "auto" else MOST_AUTO_EPOCHS
    kept = sum(min(one.last_k_epochs, epochs) for one in settings.callbacks_of(TrainingCheckpoint)) * weights
    most = start_and_best + last + max(last, moments + 2 * chosen) + kept
    folder = runs_folder() / run.experiment / run.name
    there = sum(path.stat().st_size for part in ("checkpoints", "artifact") for path in (folder / part).rglob("*"))
    return max(0, most - there) + pixels


def count(settings: FinetuningSettings) -> Counts | None:
    """The counts of a run's model, from its architecture alone; None where that is not known yet, or has to be fetched.

    Raises:
        ModelError: if there is no such model.
        SettingsError: if no part of it is left to train.
    """
    source = find_model(locate(settings.model))
    if source.hub and cached_folder(source.hub) is None:
        return None
    options = sized(settings.model_options, source.library, _dimension(settings))
    config = changed_config(config_of(source), options)
    if not config["embed_dim"]:  # an `mlp` without embeddings: validation says so
        return None
    left_out = _left_out(settings.train_data)
    lock_image = settings.lock_image or "image" not in source.towers or left_out == "image"
    lock_text = settings.lock_text or left_out == "text"
    return _count(json.dumps(config), lock_image, lock_text, settings.train_last_blocks, settings.lora_rank)


@lru_cache(maxsize=256)
def _count(config: str, lock_image: bool, lock_text: bool, last_blocks: int | None, lora_rank: int) -> Counts | None:
    model = shell(json.loads(config))
    if model is None:
        return None
    written = model.state_dict()
    weights = sum(value.nbytes for value in written.values())
    masks = sum(value.nbytes for name, value in model.named_buffers() if name not in written)
    choose_trainable(model, lock_image, lock_text, last_blocks)
    if lora_rank:
        add_lora(model, lora_rank, towers=[tower for tower in TOWERS if not tower_is_frozen(model, tower)])
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Counts(weights, trainable * FLOAT_BYTES, masks, _bytes_of_picture(model))


def _bytes_of_picture(model: Any) -> int:
    tower = getattr(model, "visual", None)
    if isinstance(tower, EmbeddingTower):
        return FLOAT_BYTES * tower.input_dim
    size = tower.image_size if tower is not None else 0
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(3 * height * width)


def _dimension(settings: FinetuningSettings) -> int:
    """Of the embeddings in the data; 0 of other data."""
    data = settings.train_data or settings.eval_data
    report = store.read_pointer(data) if data else None
    return report.dimension if report is not None else 0


def _left_out(dataset: str | None) -> Tower | None:
    """The tower that a dataset has no use for: a run that is not validated yet does not say so."""
    report = store.read_pointer(dataset) if dataset else None
    return report.kind.left_out if report is not None else None


def _check_memory(settings: FinetuningSettings, counts: Counts) -> None:
    needed = (
        counts.weights
        + counts.masks
        + (counts.trainable * (1 + OPTIMIZERS[settings.optimizer].moments) if settings.trains else 0)
    )
    devices = devices_of(settings.devices)
    copies = settings.processes if settings.processes != "auto" and devices == ("cpu",) else 1
    for device in devices:
        there = memory_of(device)
        if needed * copies > there:
            raise SettingsError(
                f"{settings.model!r} needs at least {say_size(needed * copies)} of memory for weights, gradients and "
                f"optimizer state{f' in {copies} processes' * (copies > 1)}, and {device} has {say_size(there)}. Choose a "
                "smaller model, or train less of it (lora_rank, train_last_blocks, lock_image, lock_text)"
            )


def memory_of(device: str, control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """All memory of a device in bytes, whether it is free or not; of a GPU that is not there, without limit.

    Args:
        device: `cpu` or `cuda:N`.
        control_group: folder with the limits of this container (version 2 of Linux's control groups).
    """
    if device.startswith("cuda"):
        number = int(device.partition(":")[2])
        there = number < torch.cuda.device_count()  # validation says so in its own words
        return torch.cuda.get_device_properties(number).total_memory if there else 2**63
    try:
        limit = float((control_group / "memory.max").read_text().strip().replace("max", "inf"))
    except (OSError, ValueError):
        limit = math.inf
    return int(min(limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))


def _datasets(run: FinetuningRun, settings: FinetuningSettings) -> list[tuple[str, int]]:
    """Fingerprint and number of pictures of each dataset the run uses: as it was validated, else as the names are now."""
    known = run.data_fingerprints
    if not known:
        callbacks = [name for callback in settings.evaluations for name in (callback.query_data, callback.index_data)]
        parts = (settings.train_data, settings.eval_data, settings.val_data, settings.retention_data)
        names = {*parts, *callbacks} - {None}
        known = {store.describe(str(name)).fingerprint for name in names}
    return [(fingerprint, _pictures(fingerprint)) for fingerprint in sorted(known)]


def _pictures(fingerprint: str) -> int:
    manifest = store.content_folder(fingerprint) / "manifest.json"
    found = json.loads(manifest.read_text(encoding="utf-8"))
    return int(found.get("pictures", found["images"]))  # those of before name no pictures, and have no matches


def _pixels_needed(fingerprint: str, pictures: int, counts: Counts) -> int:
    """Bytes of a dataset's pixels, unless they are there: then a file has just that size, but for its header."""
    needed = pictures * counts.pixels
    there = store.content_folder(fingerprint).glob("pixels-*.npy")
    return 0 if any(0 <= path.stat().st_size - needed < 4096 for path in there) else needed
