"""Training goes on from an earlier run: with its model, with its optimizer's state, and with its data known as seen."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.errors import SettingsError
from attune.models.open_clip_files import WEIGHTS
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import STAGES, run_stage
from attune.training.continuing import STEP
from tests.attune.trained import QUICK, of_kind

HOME = "ATTUNE_HOME"
PLAIN = {**QUICK, "train_data": "first-half", "interpolation": False, "ema_decay": 0, "check_pairs": False}


def make(name: str, **settings: object) -> RunFolder:
    given: dict[str, object] = {**PLAIN, **settings}
    if "eval_data" in given:
        del given["eval_split"]
    return RunFolder.create(FinetuningRun(name=name, settings=given))


def through_all_stages(name: str, **settings: object) -> RunFolder:
    folder = make(name, **settings)
    for stage in STAGES:
        run_stage(stage, name)
    return folder


def optimizer(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.checkpoints / "optimizer.safetensors")


def steps_of(folder: RunFolder) -> int:
    """The most steps that any weight has behind it."""
    return max(int(value.item()) for name, value in optimizer(folder).items() if name.startswith(f"{STEP}."))


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_vit: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> RunFolder:
    """A finished run, trained on the first half of the shapes; the second half is pushed beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME, str(tmp_path_factory.mktemp("continuing")))
        push("first-half", make_examples(96)[:48])
        push("second-half", make_examples(96)[48:])
        return through_all_stages("first", model=f"{tiny_vit}#scratch", learning_rate=3e-3, eval_data="second-half")


@pytest.fixture(autouse=True)
def home(first: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """That run's home."""
    monkeypatch.setenv(HOME, str(first.path.parents[2]))


def test_a_run_begins_with_the_model_that_the_earlier_one_exported(first: RunFolder) -> None:
    folder = make("second", model_artifact="first", train_data="second-half")
    run_stage("validate", "second")
    child = [sys.executable, "-W", "ignore", "-m", "attune", "train", "second"]  # as the Trainer starts it
    assert subprocess.run(child, capture_output=True, check=True).returncode == 0
    for stage in ("evaluate", "export"):
        run_stage(stage, "second")

    exported = load_file(first.artifact / WEIGHTS)
    began = load_file(folder.start_weights)
    assert began.keys() == exported.keys()
    assert all(torch.equal(began[name], exported[name]) for name in began)
    run = folder.load()
    assert run.state == "FINISHED"
    assert (run.settings["model"], run.settings["model_artifact"]) == ("first", "first")
    assert "begins with the model of the run first" in [event.message for event in of_kind(folder, "log")]
    assert steps_of(folder) == run.training.steps  # its optimizer began anew


def test_the_optimizer_goes_on_where_it_was(first: RunFolder) -> None:
    folder = make("with-optimizer", model_artifact="first", continue_optimizer=True, epochs=2)
    for stage in ("validate", "train"):
        run_stage(stage, "with-optimizer")

    before = steps_of(first)
    said = f"begins with the model of the run first, and with its optimizer's state after {before} steps"
    assert said in [event.message for event in of_kind(folder, "log")]
    assert steps_of(folder) == before + folder.load().training.steps
    anew = make("anew", model_artifact="first", epochs=2)
    for stage in ("validate", "train"):
        run_stage(stage, "anew")
    one, other = optimizer(folder), optimizer(anew)
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one if name.startswith("exp_avg_sq."))


def test_held_out_pictures_that_an_earlier_run_trained_on_are_told_of(first: RunFolder) -> None:
    """The third run comes from the second, and that from the first, whose data is now what is measured on."""
    for name, model in (("middle", "first"), ("third", "middle")):
        folder = make(name, model_artifact=model, train_data="second-half", eval_data="first-half", epochs=1)
        for stage in STAGES:
            run_stage(stage, name)

    (warning,) = [one for one in folder.load().evaluation.warnings if "training pictures" in one]

    # Of the first run's 48 pictures 7 were its validation part, which taught it nothing.
    assert "(41 the same file, " in warning
    assert "Those of the runs that the model comes from count as well: middle, first" in warning


def test_a_copy_of_an_artifact_is_known_by_its_weights(first: RunFolder, tmp_path: Path) -> None:
    copy = shutil.copytree(first.artifact, tmp_path / "copy")
    folder = RunFolder.create(FinetuningRun(name="copied", settings={"model": str(copy), "eval_data": "first-half"}))
    for stage in STAGES:
        run_stage(stage, "copied")

    (warning,) = [one for one in folder.load().evaluation.warnings if "training pictures" in one]

    assert "(41 the same file, " in warning
    assert folder.load().settings["model"] == str(copy)


def test_the_same_data_is_no_leak_for_a_model_that_never_saw_it(first: RunFolder, tiny_vit: Path) -> None:
    folder = make("fresh", model=f"{tiny_vit}#scratch", train_data="second-half", eval_data="first-half", epochs=1)
    for stage in ("validate", "train", "evaluate"):
        run_stage(stage, "fresh")

    assert not [one for one in folder.load().evaluation.warnings if "the same file" in one and "(0 the same file" not in one]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_artifact": "starter"}, "model_artifact: the model 'starter' is not that of a finished run"),
        (
            {"model": "starter", "continue_optimizer": True},
            "continue_optimizer: the model 'starter' is not that of a finished",
        ),
        ({"model_artifact": "bare", "continue_optimizer": True}, "the run 'bare' has no optimizer state. It is removed"),
        (
            {"model_artifact": "first", "continue_optimizer": True, "lock_text": True},
            "the run 'first' trained other weights than this one does",
        ),
        (
            {"model_artifact": "first", "continue_optimizer": True, "model_options": {"output_dim": 16}},
            "2 differ, the first is text_projection. Leave the model's shape as it is",
        ),
        (
            {"model_artifact": "first", "continue_optimizer": True, "optimizer": "Adam"},
            "the run 'first' was trained with AdamW, and this one is to be with Adam",
        ),
    ],
    ids=["no-run", "no-run-for-optimizer", "removed", "other-weights", "other-shape", "other-optimizer"],
)
def test_what_cannot_be_gone_on_from_is_refused_before_anything_is_loaded(
    first: RunFolder, settings: dict[str, object], message: str, request: pytest.FixtureRequest
) -> None:
    bare = first.path.with_name("bare")
    if not bare.exists():  # a finished run whose optimizer's state had its time
        shutil.copytree(first.artifact, bare / "artifact")
        (bare / "run.json").write_text((first.path / "run.json").read_text().replace('"first"', '"bare"'))
    folder = make(request.node.callspec.id, **settings)

    with pytest.raises(SettingsError) as refused:
        run_stage("validate", folder.reference)

    assert message in str(refused.value)
    assert folder.load().state == "FAILED"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "starter", "model_artifact": "first"}, "are two models to begin with"),
        ({"model_artifact": "first", "continue_optimizer": True, "lora_rank": 4}, "continue_optimizer and lora_rank"),
    ],
)
def test_settings_that_clash_are_refused_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_settings({"train_data": "x", **settings})
