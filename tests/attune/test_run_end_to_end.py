"""A run from the first stage to the last, as the executors start it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from attune.__main__ import main
from attune.config import check_settings
from attune.data import store
from attune.data.images import decode
from attune.data.parts import load_parts
from attune.errors import DataError, ExportError, ModelError, RunNotFound, SettingsError
from attune.files import sha256
from attune.models import open_clip_files
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, TrainingExample
from attune.stages import STAGES, run_stage

MODEL_FILES = ["open_clip_config.json", "open_clip_model.safetensors"]
PLOTS = ["learning_rate", "logit_scale", "loss", "mean_recall", "recall_image_to_text", "recall_text_to_image"]
PLOTS += ["similarity_after", "similarity_before"]
FILES = [
    ".run.lock",
    ".stage.lock",
    "artifact/README.md",
    "artifact/manifest.json",
    "artifact/metrics.json",
    *(f"artifact/{name}" for name in MODEL_FILES),
    "artifact/settings.json",
    "checkpoints/best.safetensors",
    "checkpoints/chosen.safetensors",
    "checkpoints/last.pt",
    "checkpoints/optimizer.safetensors",
    "checkpoints/recipe.json",
    "checkpoints/start.safetensors",
    "environment.json",
    "events.jsonl",
    "report/README.md",
    "report/examples.json",
    "report/examples.png",
    "report/index.html",
    "report/metrics.json",
    *(f"report/plots/{name}.png" for name in PLOTS),
    "report/ranks.npz",
    "run.json",
]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., object],
) -> Iterator[RunFolder]:
    """A finished run, trained in a child process; its ATTUNE_HOME holds for the whole module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("finished")))
        push("shapes", make_examples(60))
        chosen = {
            "model": f"{tiny_model}#scratch",
            "train_data": "shapes",
            "epochs": 6,
            "batch_size": 16,
            "learning_rate": 2e-3,
        }
        chosen |= {"augmentation": "none", "devices": "cpu", "eval_split": 0.3}
        folder = RunFolder.create(FinetuningRun(name="whole", settings=chosen))
        for stage in STAGES:
            if stage != "train":  # the same code, without seconds of imports
                patch.setattr(sys, "argv", ["attune", stage, "whole"])
                assert main() == 0
                continue
            command = [sys.executable, "-W", "ignore", "-m", "attune", stage, "whole"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
        yield folder


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_run_folder_has_exactly_these_files(finished: RunFolder) -> None:
    assert files_of(finished.path) == sorted(FILES)


def test_the_run_went_through_its_states_in_order(finished: RunFolder) -> None:
    states = [event.message.removeprefix("state ") for event in finished.events() if event.kind == "state"]

    assert states == ["VALIDATING", "TRAINING", "EVALUATING", "EXPORTING", "FINISHED"]
    run = finished.load()
    assert (run.state, run.error) == ("FINISHED", "")
    assert list(run.stage_seconds) == ["validate", "train", "evaluate", "export"]
    assert run.created_at < run.finished_at
    assert run.settings["max_grad_norm"] == 1.0  # every default is written out


def test_every_stage_asked_again_returns_what_is_there(finished: RunFolder) -> None:
    before = finished.load()
    events = len(list(finished.events()))
    times = {name: (finished.path / name).stat().st_mtime_ns for name in FILES if not name.endswith(".lock")}

    for stage in STAGES:
        assert run_stage(stage, "whole").model_dump(exclude={"id"}) == before.model_dump(exclude={"id"})

    assert len(list(finished.events())) == events
    assert {name: (finished.path / name).stat().st_mtime_ns for name in times} == times


def test_plain_open_clip_and_numpy_get_the_reported_numbers_from_the_raw_pictures(finished: RunFolder) -> None:
    run = finished.load()
    report = json.loads((finished.report / "metrics.json").read_text())
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    raw = {digest: data for batch in store.iter_images(run.train_fingerprint) for digest, data in batch}
    assert (report["images"], report["captions"]) == (len(test), 2 * len(test)) == (18, 36)

    start = finished.path.parent / "start-model"
    clip = load_clip(run.settings["model"])
    clip.load_weights(finished.checkpoints / "start.safetensors")
    clip.save_folder(start)
    for folder, reported in ((start, report["before"]), (finished.artifact, report["after"])):
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        model.eval()
        captions = [text for texts in test.captions for text in texts]
        with torch.no_grad():
            pictures = torch.stack([preprocess(decode(raw[digest])) for digest in test.images])
            images = model.encode_image(pictures, normalize=True).numpy()
            texts = model.encode_text(tokenizer(captions), normalize=True).numpy()
        scores = texts @ images.T
        owner = np.repeat(np.arange(len(test)), 2)
        by_text = [1 + sum(np.delete(row, own) >= row[own]) for row, own in zip(scores, owner, strict=True)]
        by_image = [1 + sum(column[owner != own] >= column[owner == own].max()) for own, column in enumerate(scores.T)]
        expected = {}
        for direction, rank in (("text_to_image", np.array(by_text)), ("image_to_text", np.array(by_image))):
            expected |= {f"{direction}_recall@{k}": np.mean(rank <= k) for k in (1, 5, 10)}
            expected |= {f"{direction}_mrr": np.mean(1 / rank), f"{direction}_median_rank": np.median(rank)}
        assert reported == expected


def test_the_tuned_model_is_better_on_what_it_did_not_see(finished: RunFolder) -> None:
    evaluation = finished.load().evaluation

    assert evaluation.after["text_to_image_mrr"] > evaluation.before["text_to_image_mrr"]
    for name, low in evaluation.difference_low.items():
        assert low <= evaluation.after[name] - evaluation.before[name] <= evaluation.difference_high[name]


def test_the_report_is_in_the_run_in_the_artifact_and_on_its_card(finished: RunFolder) -> None:
    report = json.loads((finished.report / "metrics.json").read_text())

    evaluation = finished.load().evaluation.model_dump(exclude={"id"})
    assert {name: report[name] for name in evaluation} == evaluation
    assert json.loads((finished.artifact / "metrics.json").read_text()) == report
    card = (finished.artifact / "README.md").read_text()
    before, after = (report[when]["text_to_image_recall@5"] for when in ("before", "after"))
    assert f"| text to image recall@5 | {before:.3f} | {after:.3f} | {after - before:+.3f} (" in card


def test_the_manifest_and_the_run_give_the_checksum_of_every_file(finished: RunFolder) -> None:
    manifest = json.loads((finished.artifact / "manifest.json").read_text())
    artifact = finished.load().artifact
    names = files_of(finished.artifact)

    assert sorted(manifest["checksums"]) == [name for name in names if name != "manifest.json"]
    assert sorted(artifact.checksums) == sorted(artifact.files) == names
    assert artifact.checksums == {name: sha256(finished.artifact / name) for name in names}
    assert artifact.files == {name: (finished.artifact / name).stat().st_size for name in names}
    assert artifact.max_difference <= 1e-6
    origin = json.loads((finished.artifact / "settings.json").read_text())
    assert (origin["run"], origin["train_fingerprint"]) == ("whole", finished.load().train_fingerprint)
    assert torch.__version__.startswith(origin["environment"]["packages"]["torch"])


def test_the_example_queries_say_where_the_right_picture_was(finished: RunFolder) -> None:
    examples = json.loads((finished.report / "examples.json").read_text())

    assert [example["kind"] for example in examples].count("random") == 12
    assert {example["kind"] for example in examples} <= {"random", "better", "worse"}
    for example in examples:
        for when in ("before", "after"):
            hits = [hit["image"] for hit in example[f"hits_{when}"]]
            assert len(hits) == 5
            assert (example["image"] in hits) == (example[f"rank_{when}"] <= 5)
    assert decode((finished.report / "examples.png").read_bytes()).width > 900


def copy_of(finished: RunFolder, name: str, **fields: object) -> RunFolder:
    """A copy of the finished run under another name, with some fields as they were before a stage."""
    shutil.copytree(finished.path, finished.path.with_name(name))
    folder = RunFolder.open(name)

    def change(run: FinetuningRun) -> None:
        for field, value in {"name": name, **fields}.items():
            setattr(run, field, value)

    folder.update(change)
    return folder


def test_an_export_that_does_not_give_back_the_trained_model_is_refused(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(finished, "tampered", artifact=FinetuningRun().artifact, state="EVALUATING")
    shutil.rmtree(folder.artifact)
    save_weights = open_clip_files.save_weights

    def tampered(path: Path, state: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
        """The disk gives back one weight tensor other than it was given."""
        save_weights(path, {**state, "text_projection": state["text_projection"] + 0.05}, dtype)

    monkeypatch.setattr(open_clip_files, "save_weights", tampered)

    with pytest.raises(ExportError, match=r"The exported model embeds 18 held-out examples differently .* allowed 0"):
        run_stage("export", "tampered")

    assert not folder.artifact.exists()
    assert (folder.path / ".artifact" / "open_clip_model.safetensors").is_file()
    assert folder.load().state == "FAILED"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"epoch": 3}, SettingsError, "did you mean 'epochs'"),
        ({"loss": "Triplet"}, SettingsError, "Use one of: CLIPLoss"),
        ({"model": "ViT-B-33#openai"}, ModelError, "Did you mean ViT-B-32"),
        ({"train_data": "absent"}, DataError, "no dataset named 'absent'.*Datasets here: shapes"),
        ({"eval_data": "absent", "eval_split": None}, DataError, "no dataset named 'absent'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_that_cannot_work_fails_before_it_starts(
    finished: RunFolder, tiny_model: Path, change: dict[str, object], error: type[Exception], said: str
) -> None:
    settings = {"model": str(tiny_model), "train_data": "shapes", **change}
    settings = {key: value for key, value in settings.items() if value is not None}
    folder = RunFolder.create(FinetuningRun(name=f"wrong-{next(iter(change))}", settings=settings))

    with pytest.raises(error, match=said):
        run_stage("validate", folder.path.name)

    run = folder.load()
    assert run.state == "FAILED"
    assert run.error


def test_a_stage_as_a_process_tells_the_reason_and_exits_with_one(finished: RunFolder) -> None:
    RunFolder.create(FinetuningRun(name="unset", settings={"train_data": "shapes"}))

    command = [sys.executable, "-W", "ignore", "-m", "attune", "validate", "unset"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "- model is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert "- model is missing" in RunFolder.open("unset").load().error


@pytest.mark.parametrize("arguments", [[], ["dance", "whole"], ["train"], ["train", "whole", "now"]])
def test_another_command_line_is_answered_with_how_to_use_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["attune", *arguments])

    assert main() == 2
    assert capsys.readouterr().err == "usage: python -m attune {validate,train,evaluate,export} RUN\n"


def test_a_stage_of_an_unknown_run_is_refused(finished: RunFolder) -> None:
    with pytest.raises(RunNotFound, match="There is no run named 'absent'"):
        run_stage("train", "absent")
