"""Fixtures that every test may use: a home of its own, a tiny model, pictures with captions, a pushed dataset."""

import io
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from attune.data import uploads
from attune.models.clip import load_clip
from attune.schemas import DatasetReport, TrainingExample
from attune.service.settings import service_settings

# One thread, here and in the processes that tests start: tiny models gain nothing from more, and on a busy machine
# threads that wait for each other cost minutes. Equal numbers of threads also make results equal to the last bit.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "brown", "pink")
SHAPES = ("circle", "square", "triangle", "cross")
BACKGROUNDS = ("white", "black", "gray")

TINY_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "test_resnet",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
"""An open_clip configuration that loads and trains in a moment: about 2 million weights, most of them token vectors."""


def picture(
    colour: str, shape: str = "circle", background: str = "white", size: tuple[int, int] = (40, 36), kind: str = "PNG"
) -> bytes:
    """An encoded picture of one shape."""
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    box = (6, 6, 30, 30)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        draw.polygon([(18, 6), (30, 30), (6, 30)], fill=colour)
    else:
        draw.rectangle((15, 6, 21, 30), fill=colour)
        draw.rectangle((6, 15, 30, 21), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def coloured_examples() -> list[TrainingExample]:
    """40 pictures of one colour each, all of another size, with a caption each: enough to train on, and soon made."""
    return [
        TrainingExample(image=picture(colour, size=(30 + number, 40)), captions=[f"{colour} {number}"])
        for number, colour in enumerate(COLOURS * 5)
    ]


def labelled_examples() -> list[TrainingExample]:
    """The same, each with its colour as its label."""
    return [each.model_copy(update={"label": each.captions[0].split()[0]}) for each in coloured_examples()]


@pytest.fixture(autouse=True)
def _settings_of_this_test() -> Iterator[None]:
    """The service's settings are read once in a process; no test is to see those of another."""
    service_settings.cache_clear()
    yield
    service_settings.cache_clear()


@pytest.fixture
def attune_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ATTUNE_HOME of this test's own, seen by this process and by those it starts."""
    folder = tmp_path / "attune-home"
    monkeypatch.setenv("ATTUNE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP of random weights (32 px, 32 dimensions): `model=str(tiny_model)`."""
    scratch, folder = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("model") / "tiny"
    (scratch / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    load_clip(f"{scratch}#scratch").save_folder(folder)
    return folder


@pytest.fixture(scope="session")
def make_examples() -> Callable[..., list[TrainingExample]]:
    """A function: `make_examples(24)` gives that many examples (at most 96), all different, the same every time.

    Each is a coloured shape with captions such as "a red circle on white" and "red circle, white background";
    `captions=1` or `2` says how many of them.
    """

    def make(count: int = 24, captions: int = 2) -> list[TrainingExample]:
        kinds = list(itertools.product(COLOURS, SHAPES, BACKGROUNDS))
        random.Random(0).shuffle(kinds)
        return [
            TrainingExample(
                image=picture(colour, shape, background),
                captions=[f"a {colour} {shape} on {background}", f"{colour} {shape}, {background} background"][:captions],
                source=f"example {number}",
            )
            for number, (colour, shape, background) in enumerate(kinds[:count], start=1)
        ]

    return make


@pytest.fixture(scope="session")
def push() -> Callable[..., DatasetReport]:
    """A function: `push("shapes", examples)` stores the examples in ATTUNE_HOME in batches, and commits them."""

    def store_all(name: str, examples: Sequence[TrainingExample], batch_size: int = 16, upload: str = "") -> DatasetReport:
        upload = upload or f"upload-of-{name}"
        starts = range(0, len(examples), batch_size)
        batches = [uploads.add_batch(name, upload, examples[start : start + batch_size]) for start in starts]
        return uploads.commit(name, upload, [key for batch in batches for key in batch.batches])

    return store_all
