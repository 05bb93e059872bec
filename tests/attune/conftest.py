"""Data and models for tests that train."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from attune.models.architecture import CONFIG
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from tests.attune.trained import start
from tests.conftest import TINY_CONFIG


@pytest.fixture
def shapes(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    """48 pictures with a caption each, pushed as `shapes`."""
    return push("shapes", make_examples(48, captions=1))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP of random weights, two transformer blocks in each tower: no batch norm, no dropout."""
    scratch, folder = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("model") / "vit"
    config = json.loads(json.dumps(TINY_CONFIG))
    config["model_cfg"]["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
    config["model_cfg"]["text_cfg"]["layers"] = 2
    (scratch / CONFIG).write_text(json.dumps(config))
    load_clip(f"{scratch}#scratch").save_folder(folder)
    return folder


@pytest.fixture(scope="session")
def knowing(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_vit: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> tuple[Path, RunFolder]:
    """A folder with a tiny CLIP that knows the shapes, and the run it was trained in; their home has all 96 as `shapes`.

    Other runs may use that home: `monkeypatch.setenv("ATTUNE_HOME", str(run.path.parents[2]))`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("knowing")))
        push("shapes", make_examples(96))
        folder = start("teacher", f"{tiny_vit}#scratch", epochs=20, learning_rate=3e-3, interpolation=False)
        run_stage("train", "teacher")
        clip = load_clip(str(tiny_vit))
        clip.load_weights(folder.chosen_weights)
        clip.save_folder(folder.path / "model")
        return folder.path / "model", folder


@pytest.fixture(scope="session")
def shifted(
    knowing: tuple[Path, RunFolder],
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> None:
    """`shifted`, beside the shapes: each picture has the captions of the next one."""
    examples = make_examples(96)
    captions = [example.captions for example in examples]
    for example, wrong in zip(examples, captions[1:] + captions[:1], strict=True):
        example.captions = wrong
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(knowing[1].path.parents[2]))
        push("shifted", examples)


@pytest.fixture
def model(knowing: tuple[Path, RunFolder], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that knows the shapes, in the home where it learnt them."""
    folder, run = knowing
    monkeypatch.setenv("ATTUNE_HOME", str(run.path.parents[2]))
    return folder


@pytest.fixture
def tuned(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The run that a test's own module has as `finished`, in its home."""
    monkeypatch.setenv("ATTUNE_HOME", str(finished.path.parents[2]))
    return finished
