"""Runs without training data: a model is measured as it is, alone or beside another."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attune.config import check_settings
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.data.pixels import open_pixels
from attune.errors import AttuneError, DataError, DatasetNotFound, ModelError
from attune.evaluation.measure import measure
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, TrainingExample
from attune.stages import STAGES, run_stage
from attune.validation import validate


@pytest.fixture(scope="module", autouse=True)
def data(
    tmp_path_factory: pytest.TempPathFactory,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., object],
) -> Iterator[None]:
    """24 pictures with two captions each, pushed as `shapes`, and one of them as `one`; the home is the module's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("evaluated")))
        push("shapes", make_examples(24))
        push("one", make_examples(1))
        yield


def finished(name: str, **settings: object) -> RunFolder:
    """A run on `shapes` that went through all stages."""
    folder = RunFolder.create(FinetuningRun(name=name, settings={"eval_data": "shapes", "devices": "cpu", **settings}))
    for stage in STAGES:
        run_stage(stage, name)
    return folder


@pytest.fixture(scope="module")
def alone(tiny_model: Path, data: None) -> RunFolder:
    """The tiny model, measured as it is."""
    return finished("alone", model=str(tiny_model))


def figures(model: str) -> dict[str, float]:
    clip = load_clip(model)
    pairs = load_pairs(RunFolder.open("alone").load().eval_fingerprint)
    return measure(clip, pairs, open_pixels(pairs.fingerprint, clip.preprocess, clip.resize)).metrics


def test_a_model_is_measured_on_all_of_the_data_and_the_run_is_finished(alone: RunFolder, tiny_model: Path) -> None:
    run = alone.load()

    assert run.state == "FINISHED"
    assert run.created_at < run.finished_at
    assert (run.evaluation.images, run.evaluation.captions) == (24, 48)
    assert run.evaluation.before == run.evaluation.difference_low == {}
    assert {name: run.evaluation.after[name] for name in figures(str(tiny_model))} == figures(str(tiny_model))


def test_nothing_is_trained_or_exported(alone: RunFolder) -> None:
    states = [event.message.removeprefix("state ") for event in alone.events() if event.kind == "state"]

    assert states == ["VALIDATING", "EVALUATING", "FINISHED"]
    assert list(alone.load().stage_seconds) == ["validate", "evaluate"]
    assert not alone.checkpoints.exists()
    assert not alone.artifact.exists()


def test_every_stage_asked_again_returns_what_is_there(alone: RunFolder) -> None:
    before, events = alone.load(), len(list(alone.events()))

    for stage in STAGES:
        assert run_stage(stage, "alone").model_dump(exclude={"id"}) == before.model_dump(exclude={"id"})

    assert len(list(alone.events())) == events


def test_a_baseline_is_measured_on_the_same_data(alone: RunFolder, tiny_model: Path) -> None:
    evaluation = finished("beside", model=str(tiny_model), baseline=f"{tiny_model}#scratch", seed=3).load().evaluation

    assert evaluation.after == alone.load().evaluation.after
    assert evaluation.split_fingerprint == alone.load().evaluation.split_fingerprint
    assert evaluation.before.keys() == evaluation.after.keys()
    assert evaluation.before != evaluation.after
    assert evaluation.after_low == {}
    for name, low in evaluation.difference_low.items():
        assert low <= evaluation.after[name] - evaluation.before[name] <= evaluation.difference_high[name]


@pytest.mark.parametrize("stage", ["train", "export"])
def test_a_stage_without_work_leaves_a_new_run_as_it_is(stage: str, tiny_model: Path) -> None:
    name = f"{stage}-first"
    folder = RunFolder.create(FinetuningRun(name=name, settings={"eval_data": "shapes", "model": str(tiny_model)}))

    assert run_stage(stage, name).state == "CREATED"
    assert list(folder.events()) == []


def test_only_what_an_evaluation_uses_is_written_out(alone: RunFolder, tiny_model: Path) -> None:
    settings = alone.load().settings

    assert settings == {
        "model": str(tiny_model),
        "eval_data": "shapes",
        "baseline": None,
        "prompt_templates": "openai",
        "devices": "cpu",
        "seed": 0,
    }
    assert not check_settings(settings).trains


def test_all_of_the_data_is_the_test_part(alone: RunFolder) -> None:
    run = alone.load()
    parts = load_parts(check_settings(run.settings), "", run.eval_fingerprint)

    assert (len(parts.train), len(parts.validation), len(parts.test), parts.retention) == (0, 0, 24, None)
    assert parts.test == load_pairs(run.eval_fingerprint)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model": "ViT-B-33#openai"}, ModelError, "Did you mean ViT-B-32"),
        ({"baseline": "ViT-B-33#openai"}, ModelError, "Did you mean ViT-B-32"),
        ({"prompt_templates": "absent.txt"}, DataError, "prompt_templates = 'absent.txt'"),
        ({"eval_data": "absent"}, DatasetNotFound, "no dataset named 'absent'"),
        ({"eval_data": "one"}, DataError, "eval_data 'one' has 1 picture; at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    tiny_model: Path, change: dict[str, object], error: type[AttuneError], said: str
) -> None:
    settings = {"model": str(tiny_model), "eval_data": "shapes", **change}

    with pytest.raises(error, match=said):
        validate(FinetuningRun(settings=settings))


def test_a_finished_runs_model_is_found_by_the_runs_name(tiny_model: Path) -> None:
    tuned = RunFolder.create(FinetuningRun(name="tuned"))
    wanted = FinetuningRun(settings={"model": "tuned", "baseline": "starter", "eval_data": "shapes"})
    with pytest.raises(ModelError, match="'tuned' is a run, and no model yet: it is CREATED"):
        validate(wanted)

    load_clip(str(tiny_model)).save_folder(tuned.artifact)

    settings = validate(wanted)["settings"]
    assert (settings["model"], settings["baseline"]) == ("tuned", "starter")  # the name that people know
