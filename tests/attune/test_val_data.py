"""Runs whose weights are chosen on data of its own, and that learn from another kind of data than they are judged by."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from attune.config import check_settings
from attune.data import store
from attune.data.pairs import load_pairs
from attune.data.parts import Parts, load_parts
from attune.errors import AttuneError, DataError, SettingsError, TrainingStopped
from attune.evaluation.correlation import correlations, similarities
from attune.models.clip import load_folder
from attune.room import check_fits
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from tests.attune.matches import drawings
from tests.attune.test_training import assert_equal, weights
from tests.attune.texts import graded, questions
from tests.attune.trained import QUICK, of_kind
from tests.conftest import coloured_examples

Push = Callable[..., DatasetReport]

JUDGED = {"train_data": "pairs", "val_data": "judged-dev", "eval_data": "judged-test"}
BY_RETRIEVAL = {"train_data": "judged-train", "val_data": "pairs-dev", "eval_data": "pairs-test"}


def settings_of(model: Path | str, **changes: object) -> dict[str, object]:
    """Those of a quick run; the split that a dataset takes the place of is left out."""
    settings = {**QUICK, "model": str(model), **changes}
    instead = {f"{part}_split" for part in ("eval", "val") if settings.get(f"{part}_data")}
    return {name: value for name, value in settings.items() if name not in instead}


def begun(name: str, model: Path | str, **changes: object) -> RunFolder:
    folder = RunFolder.create(FinetuningRun(name=name, settings=settings_of(model, **changes)))
    run_stage("validate", name)
    return folder


def parts_of(folder: RunFolder) -> Parts:
    run = folder.load()
    return load_parts(
        check_settings(run.settings), run.train_fingerprint, run.eval_fingerprint, val_fingerprint=run.val_fingerprint
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path, push: Push) -> RunFolder:
    """A run that learnt from pairs and was judged by scores; its home has other kinds of data as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("judged")))
        pairs, judged = questions(), {one.text: one for one in graded(captions=3)}
        push("pairs", pairs[:52])
        push("pairs-dev", pairs[52:76])
        push("pairs-test", pairs[76:])
        push("judged-train", [judged[one.text] for one in pairs[:52]])
        push("judged-dev", [judged[one.text] for one in pairs[52:76]])
        push("judged-test", [judged[one.text] for one in pairs[76:]])
        shapes = coloured_examples()
        push("shapes", shapes)
        push("shapes-dev", shapes[:20])
        push("shapes-test", shapes[20:])
        push("drawings-dev", drawings(20))
        push("drawings-test", drawings(44)[20:])
        folder = begun(
            "tuned",
            f"{tiny_vit}#scratch",
            **JUDGED,
            epochs=12,
            learning_rate=1e-2,
            loss="MultipleNegativesRankingLoss",
            interpolation=False,
        )
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_a_model_learns_from_pairs_and_is_chosen_and_judged_by_scores(tuned: RunFolder) -> None:
    run, parts = tuned.load(), parts_of(tuned)
    clip = load_folder(tuned.artifact)

    def spearman(part: str) -> float:
        pairs = getattr(parts, part)
        similar, scores, _ = similarities(clip.encode_texts(pairs.queries), clip.encode_texts(pairs.texts), pairs)
        return float(correlations(similar, scores)["spearman"][0])

    assert (len(parts.train), len(parts.validation), len(parts.test)) == (52, 24, 24)
    assert run.training.recipe["loss"] == "MultipleNegativesRankingLoss"
    assert run.training.best_recall == pytest.approx(spearman("validation"), abs=1e-3)
    assert run.training.best_recall > run.training.start_recall + 0.2
    assert run.evaluation.after == pytest.approx({"spearman": spearman("test"), "pearson": run.evaluation.after["pearson"]})
    assert run.evaluation.after["spearman"] > run.evaluation.before["spearman"] + 0.2
    assert of_kind(tuned, "check")[1].message.startswith("pairs: ")  # of the training data, which has no scores


def test_the_data_it_was_chosen_on_is_recorded(tuned: RunFolder) -> None:
    run = tuned.load()
    dev = store.describe("judged-dev").fingerprint

    assert run.val_fingerprint == dev
    assert run.settings["val_data"] == "judged-dev"
    assert "val_split" not in run.settings
    assert json.loads((tuned.artifact / "settings.json").read_text())["val_fingerprint"] == dev
    assert "Chosen by Spearman's correlation on `judged-dev`:" in (tuned.artifact / "README.md").read_text()
    page = (tuned.report / "index.html").read_text()
    assert dev in page
    assert "--val-data judged-dev" in page


def test_the_run_goes_on_with_the_data_it_began_with(tuned: RunFolder, tiny_vit: Path, push: Push) -> None:
    push("dev", [one for one in graded(captions=3) if one.text in load_pairs(tuned.load().val_fingerprint).queries])
    settings = {**JUDGED, "val_data": "dev", "check_pairs": False}  # the model knows nothing of them
    unbroken, broken = (begun(name, tiny_vit, **settings) for name in ("unbroken", "broken"))
    push("dev", graded(8))
    run_stage("train", "unbroken")
    asked = count(1)
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: next(asked) == 6))
    run_stage("train", "broken")

    assert_equal(weights(broken, "chosen"), weights(unbroken, "chosen"))
    assert broken.load().training.best_recall == unbroken.load().training.best_recall


def test_a_model_learns_from_scores_and_is_chosen_and_judged_by_retrieval(tuned: RunFolder, tiny_vit: Path) -> None:
    folder = begun("by-retrieval", f"{tiny_vit}#scratch", **BY_RETRIEVAL, epochs=2)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "by-retrieval")

    run = folder.load()
    assert run.training.recipe["loss"] == "CoSENTLoss"
    assert all("mean_recall" in event.values for event in of_kind(folder, "validation"))
    assert "query_to_document_recall@5" in run.evaluation.after
    assert "spearman" not in run.evaluation.after
    assert not [event for event in of_kind(folder, "check") if event.message.startswith("pairs: ")]


def test_pictures_with_captions_are_learnt_from_and_pairs_of_pictures_judged_by(tuned: RunFolder, tiny_vit: Path) -> None:
    data = {"train_data": "shapes", "val_data": "drawings-dev", "eval_data": "drawings-test"}
    folder = begun("by-matches", tiny_vit, **data, epochs=1, check_pairs=False, word_dropout=0.1)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "by-matches")

    run = folder.load()
    assert not run.settings["lock_text"]  # captions are learnt from
    assert "match->picture recall@5" in of_kind(folder, "validation")[0].message
    assert (run.evaluation.images, run.evaluation.matches) == (24, 24)
    assert "picture_to_match_recall@5" in run.evaluation.after


def test_pairs_of_pictures_are_learnt_from_and_known_again_among_captioned_ones(
    tuned: RunFolder, tiny_vit: Path, push: Push
) -> None:
    twins = zip(drawings(20), coloured_examples()[20:], strict=True)
    push("twins", [one.model_copy(update={"images": [held_out.image]}) for one, held_out in twins])
    data = {"train_data": "twins", "val_data": "shapes-dev", "eval_data": "shapes-test"}
    folder = begun("by-captions", tiny_vit, **data, epochs=1, check_pairs=False)
    for stage in ("train", "evaluate"):
        run_stage(stage, "by-captions")

    assert folder.load().settings["lock_text"]
    assert json.loads((folder.report / "metrics.json").read_text())["leaked"]
    assert "text_to_image_recall@5" in folder.load().evaluation.after


def test_shuffled_training_pairs_are_refused_whatever_the_weights_are_chosen_on(tuned: RunFolder, push: Push) -> None:
    pairs = questions(documents=1)
    push("many", pairs[50:])  # enough to tell by, but these are right
    push("others", [one.model_copy(update={"text": one.text.replace("where", "who")}) for one in pairs[:4]])
    examples = pairs[:50]
    captions = [example.captions for example in examples]
    for example, wrong in zip(examples, captions[1:] + captions[:1], strict=True):
        example.captions = wrong
    push("shifted", examples)
    begun("shuffled", "tuned", train_data="shifted", val_data="many", eval_data="others", epochs=1)

    with pytest.raises(DataError, match="no better than shuffled ones"):
        run_stage("train", "shuffled")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"val_data": None},
            DataError,
            "'judged-test' have scores and those of 'pairs' have none.*or give both eval_data and val_data: .*'pairs'",
        ),
        ({"eval_data": None}, DataError, "'judged-dev' have scores and those of 'pairs' have none.*or give both"),
        ({"eval_data": "pairs-test"}, DataError, "'judged-dev' have scores and those of 'pairs-test' have none.*to each$"),
        ({"retention_data": "pairs-test"}, DataError, "'judged-test', 'judged-dev' have scores.*'pairs-test' have none"),
        ({"loss": "CoSENTLoss"}, DataError, "'pairs' has none. Push it with a column `score`"),
        ({**BY_RETRIEVAL, "loss": "CLIPLoss"}, SettingsError, "those of 'judged-train' have scores"),
        ({"callbacks": [{"query_data": "judged-dev"}]}, SettingsError, "Leave the evaluation callback out"),
        (
            {"callbacks": [{"kind": "best_model_checkpoint", "monitor": "mean_recall"}]},
            SettingsError,
            "Its figures are spearman and pearson",
        ),
        (
            {"train_data": "shapes"},
            DataError,
            "'shapes' holds pictures with captions and 'judged-test', 'judged-dev' holds pairs of texts: the image tower",
        ),
        (
            {"eval_data": "drawings-test", "val_data": "shapes"},
            DataError,
            "one kind, but 'shapes' holds pictures with captions and 'drawings-test' holds pairs of pictures.*to each$",
        ),
        (
            {"train_data": "shapes", "eval_data": "drawings-test", "val_data": None},
            DataError,
            "one kind, but 'shapes' holds .*to each; or give both eval_data and val_data",
        ),
        (
            {"train_data": "shapes", "eval_data": "drawings-test", "val_data": "drawings-dev", "lock_image": True},
            SettingsError,
            "pairs of pictures, as 'drawings-test', 'drawings-dev' has them:\n- lock_image is true",
        ),
        (
            {"train_data": "drawings-dev", "eval_data": "shapes-test", "val_data": "shapes-dev", "word_dropout": 0.5},
            SettingsError,
            "pairs of pictures, as 'drawings-dev' has them:\n- word_dropout",
        ),
        ({"val_data": "absent"}, AttuneError, "no dataset named 'absent'"),
    ],
)
def test_what_cannot_be_compared_or_learnt_is_refused_before_it_is_loaded(
    tuned: RunFolder, tiny_vit: Path, changes: dict[str, object], error: type[AttuneError], said: str
) -> None:
    with pytest.raises(error, match=said):
        validate(FinetuningRun(name="refused", settings=settings_of(tiny_vit, **{**JUDGED, **changes})))


def test_queries_of_callbacks_have_no_scores_where_those_that_are_judged_by_have(tuned: RunFolder, tiny_vit: Path) -> None:
    callback = {"query_data": "pairs-dev", "limit": 5}
    folder = begun("watched", tiny_vit, **JUDGED, epochs=1, check_pairs=False, callbacks=[callback])
    run_stage("train", "watched")

    assert [event.values["epoch"] for event in of_kind(folder, "callback")] == [0, 1]


def test_data_that_a_waiting_run_is_chosen_on_is_kept(tuned: RunFolder, tiny_vit: Path, push: Push) -> None:
    push("wanted", graded(30))
    run = FinetuningRun(name="waiting", settings=settings_of(tiny_vit, val_data="wanted"))
    check_fits(run)
    RunFolder.create(run)

    with pytest.raises(DataError, match="'wanted' is not deleted: the run 'waiting'"):
        store.delete("wanted")
