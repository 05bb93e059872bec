"""The evaluate stage on a real run of a tiny model, with labels and tags."""

import html
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.data.parts import load_parts
from attune.data.pixels import open_pixels
from attune.errors import EvaluationError
from attune.evaluation.classes import find_classes
from attune.evaluation.kept_ranks import FILE, query_values, unpack
from attune.evaluation.measure import measure
from attune.evaluation.zero_shot import classifier, templates
from attune.models.architecture import CONFIG
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, TrainingExample
from attune.stages import run_stage
from tests.attune.trained import QUICK

COLOURS = ["blue", "brown", "green", "orange", "pink", "purple", "red", "yellow"]


def darker(image: bytes) -> bytes:
    """The same picture, stored another time and a little darker."""
    found = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").point(lambda value: max(0, value - 2)).save(found, "PNG")
    return found.getvalue()


@pytest.fixture(scope="module")
def model(knowing: tuple[Path, RunFolder]) -> Path:
    return knowing[0]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    model: Path,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., object],
) -> Iterator[RunFolder]:
    """An evaluated run on coloured shapes: the colour is the label, the background a tag; 4 held-out ones leak."""
    examples = make_examples(96)
    for example in examples:
        colour, background = example.captions[0].split()[1], example.captions[0].split()[-1]
        example.label, example.tags = colour, {"background": background}
    train, test = examples[:64], examples[64:]
    test += [example.model_copy(update={"image": darker(example.image)}) for example in train[:4]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("evaluate")))
        push("train", train)
        push("test", test)
        push("general", make_examples(12))
        settings = QUICK | {"model": str(model), "train_data": "train", "eval_data": "test", "epochs": 1}
        settings |= {"retention_data": "general"}
        del settings["eval_split"]
        run = RunFolder.create(FinetuningRun(name="labelled", settings=settings))
        for stage in ("validate", "train", "evaluate"):
            run_stage(stage, "labelled")
        yield run


@pytest.fixture
def facts(folder: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.report / "metrics.json").read_text())
    return found


def rows(facts: dict[str, Any], section: str) -> dict[str, dict[str, float]]:
    [found] = [one for one in facts["sections"] if one["name"] == section]
    return {row["metric"]: row for row in found["rows"]}


def test_there_is_a_table_of_each_mode(facts: dict[str, Any]) -> None:
    assert [section["name"] for section in facts["sections"]] == [
        *("retrieval", "clip_benchmark", "finetuner", "imageclef"),
        *("zero_shot", "linear_probe", "neighbours", "retention"),
    ]
    assert all(section["definition"] and section["rows"] for section in facts["sections"])


def test_the_modes_agree_with_the_headline(folder: RunFolder, facts: dict[str, Any]) -> None:
    after = folder.load().evaluation.after

    for direction, task in (("text_to_image", "image_retrieval"), ("image_to_text", "text_retrieval")):
        for k in (1, 5, 10):
            recall = after[f"{direction}_recall@{k}"]
            assert rows(facts, "clip_benchmark")[f"{task}_recall@{k}"]["after"] == pytest.approx(recall)
            assert rows(facts, "retrieval")[f"{direction}_hit@{k}"]["after"] == pytest.approx(recall)
        median = rows(facts, "retrieval")[f"{direction}_median_rank"]
        assert median["after"] == after[f"{direction}_median_rank"]
        assert median["low"] is None


def test_intervals_hold_their_difference(facts: dict[str, Any]) -> None:
    found = [row for section in facts["sections"] for row in section["rows"] if row["low"] is not None]

    assert len(found) > 50
    for row in found:
        assert row["low"] - 1e-9 <= row["after"] - row["before"] <= row["high"] + 1e-9
        assert row["after_low"] is row["after_high"] is None
        assert 0 < row["p_value"] <= 1


def test_zero_shot_is_what_the_class_names_alone_give(folder: RunFolder, facts: dict[str, Any], model: Path) -> None:
    run = folder.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint, run.eval_fingerprint).test
    clip = load_clip(str(model))
    clip.load_weights(folder.chosen_weights)
    images = measure(clip, test, open_pixels(test.fingerprint, clip.preprocess, clip.resize)).images
    scores = images @ classifier(clip, COLOURS, templates("openai")).T
    right = np.asarray([COLOURS.index(label) for label in test.labels])

    assert rows(facts, "zero_shot")["acc1"]["after"] == pytest.approx(np.mean(scores.argmax(1) == right))
    assert [one["name"] for one in facts["zero_shot"]["classes"]] == COLOURS
    assert np.sum(facts["zero_shot"]["confusion"]) == len(test)


def test_probes_learn_the_colours_from_the_training_pictures(facts: dict[str, Any]) -> None:
    chance = 1 / len(COLOURS)

    assert rows(facts, "linear_probe")["acc1"]["after"] > 2 * chance
    assert rows(facts, "neighbours")["acc1"]["after"] > 2 * chance


def test_figures_are_sliced_by_label_length_and_tag(folder: RunFolder, facts: dict[str, Any]) -> None:
    slices = {(one["tag"], one["value"]): one for one in facts["slices"]}
    captions = folder.load().evaluation.captions

    by_length = [one["queries"] for one in facts["slices"] if one["tag"] == "caption length"]
    assert sum(by_length) == captions
    assert ("background", "white") in slices
    assert facts["wins"]["text_to_image"].keys() == {"better", "worse", "same"}
    assert sum(facts["wins"]["text_to_image"].values()) == captions


def test_held_out_pictures_that_are_nearly_training_pictures_are_reported(folder: RunFolder, facts: dict[str, Any]) -> None:
    [warning] = folder.load().evaluation.warnings

    assert "(0 the same file," in warning
    assert warning in facts["warnings"]
    assert (folder.report / "index.html").read_text().count("nearly alike") == 1


def test_the_history_says_what_is_being_measured(folder: RunFolder) -> None:
    assert [event.message for event in folder.events() if event.kind == "evaluation"] == [
        "measuring the model before training: 36 held-out pictures with 72 captions",
        "measuring the model after training",
        "looking for held-out pictures among those it learnt from",
        *(
            f"figures, {when}: retrieval; 8 classes by their names, linear probe and neighbours from {learnt} pictures"
            for when in ("before", "after")
            for learnt in [len(load_train(folder))]
        ),
        "intervals, by bootstrap over pictures",
        "writing the report",
    ]


def load_train(folder: RunFolder) -> Pairs:
    run = folder.load()
    return load_parts(check_settings(run.settings), run.train_fingerprint, run.eval_fingerprint).train


def test_the_rank_of_every_query_is_kept_and_gives_the_figures_again(folder: RunFolder) -> None:
    ranks = unpack((folder.path / FILE).read_bytes())

    after = folder.load().evaluation.after
    for kind, (values, pictures) in query_values(ranks).items():
        assert len(pictures) == (72 if kind == "text_to_image" else 36)
        assert {name: after[name] for name in values} == pytest.approx({name: one.mean() for name, one in values.items()})


def test_an_evaluation_asked_for_twice_at_once_is_done_once(folder: RunFolder, model: Path) -> None:
    RunFolder.create(FinetuningRun(name="twice", settings={"eval_data": "test", "devices": "cpu", "model": str(model)}))
    run_stage("validate", "twice")

    asked = [subprocess.Popen([sys.executable, "-m", "attune", "evaluate", "twice"]) for _ in range(2)]

    assert [process.wait(120) for process in asked] == [0, 0]
    states = [event.message for event in RunFolder.open("twice").events() if event.kind == "state"]
    assert states == ["state VALIDATING", "state EVALUATING", "state FINISHED"]


def test_what_the_figures_depend_on_is_stored_with_them(folder: RunFolder) -> None:
    evaluation = folder.load().evaluation

    assert evaluation.fingerprints.keys() == {"preprocessing", "before", "after", "classes"}
    assert all(len(value) == 64 for value in evaluation.fingerprints.values())
    assert (evaluation.fingerprints["before"] == evaluation.fingerprints["after"]) == (evaluation.before == evaluation.after)


def test_labels_that_hardly_repeat_are_no_classes(folder: RunFolder) -> None:
    run = folder.load()
    parts = load_parts(check_settings(run.settings), run.train_fingerprint, run.eval_fingerprint)

    found = find_classes(parts, seed=0)

    assert found is not None
    assert found.names == COLOURS
    names = [f"thing {row}" for row in range(len(parts.test))]
    object.__setattr__(parts.test, "labels", names)
    assert find_classes(parts, seed=0) is None


def evaluated(name: str, **settings: object) -> FinetuningRun:
    RunFolder.create(FinetuningRun(name=name, settings={"eval_data": "test", "devices": "cpu", **settings}))
    for stage in ("validate", "evaluate"):
        run_stage(stage, name)
    return RunFolder.open(name).load()


def test_a_model_whose_embeddings_are_no_numbers_is_refused(folder: RunFolder, model: Path, tmp_path: Path) -> None:
    clip = load_clip(str(model))
    clip.model.logit_scale.data.fill_(1.0)
    for value in clip.model.visual.parameters():
        value.data.fill_(float("nan"))
    clip.save_folder(tmp_path)

    with pytest.raises(EvaluationError, match=r"embeds 36 of 36 pictures as something that is no number"):
        evaluated("damaged", model=str(tmp_path))
    assert RunFolder.open("damaged").load().state == "FAILED"


def test_a_baseline_that_takes_pictures_otherwise_is_refused(folder: RunFolder, model: Path, tmp_path: Path) -> None:
    clip = load_clip(str(model))
    clip.save_folder(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (tmp_path / CONFIG).write_text(json.dumps(config))

    with pytest.raises(EvaluationError, match="take pictures in different ways"):
        evaluated("otherwise", model=str(model), baseline=str(tmp_path))


def test_a_model_alone_has_figures_without_a_comparison(folder: RunFolder, model: Path) -> None:
    run = evaluated("alone", model=str(model))
    facts = json.loads((RunFolder.open("alone").report / "metrics.json").read_text())

    assert run.state == "FINISHED"
    assert "slices" not in facts
    found = [row for section in facts["sections"] for row in section["rows"]]
    assert {(row["before"], row["low"], row["high"], row["p_value"]) for row in found} == {(None, None, None, None)}
    assert "linear_probe" not in [section["name"] for section in facts["sections"]]
    assert rows(facts, "zero_shot")["acc1"]["after"] is not None
    assert run.evaluation.captions == 72
    told = [event.message for event in RunFolder.open("alone").events() if event.kind == "evaluation"]
    assert "figures, model: retrieval; 8 classes by their names, no probe: nothing was trained" in told


def test_the_figures_of_a_model_alone_have_intervals_of_their_own(folder: RunFolder, model: Path) -> None:
    result = evaluated("sure", model=str(model)).evaluation
    facts = json.loads((RunFolder.open("sure").report / "metrics.json").read_text())

    known = [row for section in facts["sections"] for row in section["rows"] if row["after_low"] is not None]
    assert len(known) > 50
    assert all(row["after_low"] - 1e-9 <= row["after"] <= row["after_high"] + 1e-9 for row in known)
    assert rows(facts, "retrieval")["text_to_image_median_rank"]["after_low"] is None
    assert result.difference_low == result.difference_high == result.p_values == {}
    assert (
        result.after_low.keys()
        == result.after_high.keys()
        == result.after.keys()
        - {*("text_to_image_median_rank", "image_to_text_median_rank", "zero_shot_mean_per_class_recall")}
    )
    assert facts["after_low"] == result.after_low
    page = (RunFolder.open("sure").report / "index.html").read_text()
    name = "text_to_image_recall@1"
    assert f"<td>{result.after_low[name]:.3f} to {result.after_high[name]:.3f}</td>" in page


def test_what_figures_tell_little_of_is_warned_of(
    folder: RunFolder, model: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., object]
) -> None:
    examples = make_examples(12, captions=1)
    for number, example in enumerate(examples):
        example.label = f"thing {number}"
    examples[1].captions = [examples[0].captions[0].upper()]
    push("few", examples)

    few, shared, *ties, labels = evaluated("doubtful", model=str(model), eval_data="few").evaluation.warnings

    assert few.startswith("Too few pictures to judge: 12 are held out")
    assert shared.startswith("Held-out captions that other held-out pictures have too: 2 of 12.")
    assert [said for said in ties if "scores exactly as high" not in said] == []
    assert (
        labels
        == "12 labels on 12 labelled pictures: more than half, taken for names and not for classes, so nothing is classified"
    )
    page = html.unescape((RunFolder.open("doubtful").report / "index.html").read_text())
    assert all(warning in page for warning in (few, shared, *ties, labels))


def test_a_finished_runs_model_is_not_measured_on_what_it_learnt_without_a_word(folder: RunFolder, model: Path) -> None:
    load_clip(str(model)).save_folder(folder.artifact)  # as the export stage would

    run = evaluated("on-its-own", model="labelled", eval_data="train")
    found = run.evaluation

    assert "Held-out pictures that are training pictures" in found.warnings[0]
    assert "the same file" in found.warnings[0]
    facts = json.loads((RunFolder.open("on-its-own").report / "metrics.json").read_text())
    assert 40 < len(facts["leaked"]) < 64  # all but the validation part
    assert run.settings["model"] == "labelled"  # and not the folder where it is
    told = [event.message for event in RunFolder.open("on-its-own").events() if event.kind == "evaluation"]
    assert told[0] == "measuring labelled: 64 held-out pictures with 128 captions"
