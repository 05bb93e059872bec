"""Runs on pairs with scores, judged by correlation, and on pairs with negatives: trained, measured and shown."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.config import check_settings
from attune.data.parts import load_parts
from attune.errors import AttuneError, DataError, SettingsError, TrainingStopped
from attune.evaluation.correlation import correlations, similarities
from attune.evaluation.two_runs import compare
from attune.models.clip import load_folder
from attune.report.card import model_card
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import run_stage
from attune.training.epoch import compute_gradients
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.display import examples_tables, metrics_table, run_progress, runs_table
from tests.attune.sentences import save_sentence
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.texts import graded, questions, with_negatives
from tests.attune.trained import QUICK, job_of, of_kind, start
from tests.client.test_client import printed

Push = Callable[..., DatasetReport]
Make = Callable[..., list[TrainingExample]]

LEARNT = {"train_data": "graded", "epochs": 12, "learning_rate": 1e-2, "eval_split": 0.25, "multi_positive": True}
FEW = {"train_data": "few-graded", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path, make_examples: Make, push: Push) -> RunFolder:
    """A run on graded pairs that went through all stages; its home has pairs with negatives and margins as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("graded")))
        push("graded", graded(100, captions=3))
        push("few-graded", graded(40))
        push("of-five", [one.model_copy(update={"scores": [5 * score for score in one.scores]}) for one in graded(40)])
        push("one-score", [one.model_copy(update={"scores": [0.5, 0.5]}) for one in graded(40)])
        push("negatives", with_negatives(60))
        push("margins", with_negatives(60, margins=True))
        plain = questions(40, documents=1)
        push("plain", plain)
        push("others", [one.model_copy(update={"text": one.text.replace("where", "who")}) for one in plain])
        shapes = make_examples(40, captions=1)
        push("shapes", shapes)
        marked = [one.model_copy(update={"scores": [number % 3 / 2]}) for number, one in enumerate(shapes)]
        push("graded-shapes", marked)
        folder = start("tuned", f"{tiny_vit}#scratch", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_a_model_learns_the_order_of_scores(tuned: RunFolder) -> None:
    run = tuned.load()
    result = run.evaluation

    assert run.training.recipe["loss"] == "CoSENTLoss"
    assert run.training.best_recall > run.training.start_recall + 0.2
    assert set(result.after) == {"spearman", "pearson"}
    assert result.after["spearman"] > result.before["spearman"] + 0.2
    assert result.difference_low["spearman"] > 0
    assert result.p_values == {}
    assert (result.images, result.texts, result.captions) == (0, 25, 75)


def test_figures_are_correlations_of_what_was_exported(tuned: RunFolder) -> None:
    run = tuned.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    clip = load_folder(tuned.artifact)

    similar, scores, _ = similarities(clip.encode_texts(test.queries), clip.encode_texts(test.texts), test)

    assert run.evaluation.after["spearman"] == pytest.approx(correlations(similar, scores)["spearman"][0], abs=1e-3)


def test_weights_are_chosen_by_spearman(tuned: RunFolder) -> None:
    events = of_kind(tuned, "validation")
    [result] = of_kind(tuned, "result")
    found = [event.values["spearman"] for kind in ("validation", "average") for event in of_kind(tuned, kind)]

    assert all("mean_recall" not in event.values and "val_loss" not in event.values for event in events)
    assert result.values["spearman"] >= max(found)
    assert result.values["start_spearman"] == events[0].values["spearman"]
    assert "validation spearman" in events[-1].message
    assert not of_kind(tuned, "check")[0].message.startswith("pairs:")  # shuffled pairs say nothing here


def test_the_report_shows_correlations_and_no_retrieval(tuned: RunFolder) -> None:
    facts = json.loads((tuned.report / "metrics.json").read_text())
    page = (tuned.report / "index.html").read_text()
    card = model_card(tuned.load())

    assert facts["sections"] == []
    assert "wins" not in facts
    for text in (page, card):
        assert "recall@" not in text
        assert "p-value" not in text
        assert "pearman" in text
    assert "Better" in page
    assert "Correlation of the cosine similarity" in page
    assert "Chosen by Spearman's correlation" in card
    assert "sentence-similarity" in card
    assert json.loads((tuned.report / "examples.json").read_text()) == []
    plots = {path.stem for path in (tuned.report / "plots").iterdir()}
    assert plots == {"loss", "learning_rate", "spearman", "logit_scale"}


def test_the_terminal_shows_correlations(tuned: RunFolder) -> None:
    run = tuned.load()

    shown = printed(metrics_table(run))
    assert "spearman" in shown
    assert "recall" not in shown
    assert "(spearman)" in printed(runs_table([run]))
    assert "right picture" in printed(examples_tables([], ("before", "after"), 1))
    assert run_progress(run.model_copy(update={"progress": {"spearman": 0.5}})) == "spearman 0.500"


def test_a_model_as_it_is_and_two_runs_are_compared_by_correlation(tuned: RunFolder, tiny_vit: Path) -> None:
    runs = []
    for name, model in (("as-it-is", str(tiny_vit)), ("after-all", "tuned")):
        RunFolder.create(FinetuningRun(name=name, settings={"model": model, "eval_data": "few-graded", "devices": "cpu"}))
        run_stage("validate", name)
        runs.append(run_stage("evaluate", name))

    for run in runs:
        assert (
            run.evaluation.after_low["spearman"] < run.evaluation.after["spearman"] < run.evaluation.after_high["spearman"]
        )
    section = compare(*runs)
    assert [row.metric for row in section.rows] == ["spearman", "pearson"]
    assert "no intervals" in section.definition


def test_shorter_embeddings_and_retention_have_their_correlations(tuned: RunFolder) -> None:
    changes = {"retention_data": "few-graded", "model_options": {"matryoshka_dims": [8]}, "epochs": 1}
    folder = start("shorter", "tuned", **{**LEARNT, **changes}, retention_max_drop=1)
    for stage in ("train", "evaluate"):
        run_stage(stage, "shorter")

    sections = json.loads((folder.report / "metrics.json").read_text())["sections"]
    assert [section["name"] for section in sections] == ["matryoshka_8", "retention"]
    assert all([row["metric"] for row in section["rows"]] == ["spearman", "pearson"] for section in sections)


def test_pictures_may_have_captions_with_scores(tuned: RunFolder, tiny_vit: Path) -> None:
    folder = start("pictures", tiny_vit, train_data="graded-shapes", epochs=1, loss="CosineSimilarityLoss")
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "pictures")

    assert set(folder.load().evaluation.after) == {"spearman", "pearson"}
    assert not (folder.report / "examples.png").exists()


def test_a_text_encoder_learns_the_order_of_scores_and_says_so(tuned: RunFolder, tmp_path: Path) -> None:
    folder = start("encoder", save_sentence(tmp_path / "bert"), **{**LEARNT, "epochs": 4, "learning_rate": 3e-3})
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "encoder")

    run = folder.load()
    assert run.training.recipe["loss"] == "CoSENTLoss"
    assert run.training.best_recall > run.training.start_recall + 0.1
    assert set(run.evaluation.after) == {"spearman", "pearson"}
    card = (folder.artifact / "README.md").read_text()
    assert "recall@" not in card
    assert "SentenceTransformer(" in card
    assert "correlations of\ncosine similarities" in card
    assert "Spearman" in (folder.report / "index.html").read_text()


@pytest.mark.parametrize("data", ["negatives", "margins"])
def test_a_text_encoder_takes_negatives(tuned: RunFolder, tmp_path: Path, data: str) -> None:
    loss = "MarginMSELoss" if data == "margins" else "MultipleNegativesRankingLoss"
    folder = start(f"encoder-{data}", save_sentence(tmp_path / "bert"), train_data=data, epochs=1, loss=loss)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, f"encoder-{data}")

    run = folder.load()
    assert "query_to_document_recall@5" in run.evaluation.after
    parts = load_parts(check_settings(run.settings), run.train_fingerprint)
    shared = sum(text in parts.train.wrong_texts for text in parts.test.texts)
    overlap = json.loads((folder.report / "metrics.json").read_text())["leakage"]
    assert 0 < shared < len(parts.test.texts)
    assert f"trained on as negatives: {shared}." in overlap
    assert overlap not in run.evaluation.warnings


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"loss": "CLIPLoss"}, SettingsError, "takes captions for right answers.*use one of: CoSENTLoss, CosineSimilarity"),
        ({"loss": "TripletMarginLoss"}, SettingsError, "one with a low score is none"),
        (
            {"loss": "MultipleLosses", "loss_options": {"losses": ["CoSENTLoss", "CLIPLoss"]}},
            SettingsError,
            "takes captions for right answers",
        ),
        (
            {"train_data": "plain", "loss": "CoSENTLoss"},
            DataError,
            "'plain' has none. Push it with a column `score`, or use",
        ),
        ({"train_data": "plain", "loss": "MarginMSELoss"}, DataError, "0 of the .* training queries of 'plain' have one"),
        ({"train_data": "negatives", "loss": "MarginMSELoss"}, DataError, "columns `negative` and `margin`"),
        ({"train_data": "negatives", "loss": "VICRegLoss"}, SettingsError, "no use for the negatives of 'negatives'"),
        ({"train_data": "of-five", "loss": "CosineSimilarityLoss"}, DataError, r"not from -1 to 1 \(such as"),
        ({"train_data": "one-score"}, DataError, "captions have the score 0.5: there is no order"),
        ({"eval_data": "others"}, DataError, "The captions of 'few-graded' have scores and those of 'others' have none"),
        ({"retention_data": "plain"}, DataError, "those of 'plain' have none"),
        ({"callbacks": [{"query_data": "few-graded"}]}, SettingsError, "Leave the evaluation callback out"),
        ({"callbacks": [{"kind": "early_stopping"}]}, SettingsError, "'val_loss' is no figure.*spearman and pearson"),
        (
            {"train_data": "plain", "callbacks": [{"kind": "early_stopping", "monitor": "spearman"}]},
            SettingsError,
            "these have none",
        ),
    ],
)
def test_what_does_not_go_with_scores_is_refused_before_it_is_loaded(
    tuned: RunFolder, tiny_vit: Path, changes: dict[str, object], error: type[AttuneError], said: str
) -> None:
    settings = {**QUICK, "model": str(tiny_vit), **FEW, **changes}
    if settings.get("eval_data"):
        del settings["eval_split"]

    with pytest.raises(error, match=said):
        validate(FinetuningRun(name="refused", settings=settings))


def test_scores_of_any_range_are_learnt_by_their_order(tuned: RunFolder, tiny_vit: Path) -> None:
    callback = {"kind": "best_model_checkpoint", "monitor": "pearson"}
    folder = start("of-five", tiny_vit, **{**FEW, "train_data": "of-five"}, callbacks=[callback])
    run_stage("train", "of-five")

    candidates = checkpoint(folder)["position"]["candidates"]
    assert len(candidates) == 3
    assert all(one["figure"] == one["figures"]["pearson"] != one["mean_recall"] for one in candidates)
    assert folder.load().training.recipe["loss"] == "CoSENTLoss"


WITH_NEGATIVES = [
    ("few-graded", "CoSENTLoss", {}),
    ("few-graded", "CosineSimilarityLoss", {}),
    ("negatives", "MultipleNegativesRankingLoss", {"symmetric": True}),
    ("negatives", "CLIPLoss", {}),
    ("margins", "MarginMSELoss", {"scale": 2}),
    ("negatives", "CrossBatchMemory", {"loss": "ContrastiveLoss", "memory_size": 40}),
]


@pytest.mark.parametrize(("data", "loss", "options"), WITH_NEGATIVES)
def test_pieces_of_a_batch_have_the_gradients_of_the_whole(
    tuned: RunFolder, tiny_vit: Path, data: str, loss: str, options: dict[str, object]
) -> None:
    name = f"pieces-{data}-{loss}"
    settings = {"train_data": data, "loss": loss, "loss_options": options, "multi_positive": True, "epochs": 1}
    folder = start(name, tiny_vit, **settings)
    jobs = [job_of(folder) for _ in range(2)]
    jobs[1].position.micro_batch_size = 3
    found = []
    for job in jobs:
        batches = list(job.feed.batches(1, job.feed.plan(1)))[:2]
        compute_gradients(job, batches[0])
        loss_of_second = compute_gradients(job, batches[1])  # a memory has something by now
        gradients = {
            name: weight.grad.clone() for name, weight in job.clip.model.named_parameters() if weight.grad is not None
        }
        found.append((loss_of_second, gradients))

    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for weight, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][weight], gradient, rtol=1e-3, atol=1e-6)
    assert any(gradient.abs().max() > 0 for gradient in found[0][1].values())


def test_teachers_margins_are_learnt(tuned: RunFolder, tiny_vit: Path) -> None:
    folder = start("taught", f"{tiny_vit}#scratch", train_data="margins", loss="MarginMSELoss", epochs=6, learning_rate=5e-3)
    run_stage("train", "taught")

    losses = [event.values["loss"] for event in of_kind(folder, "validation")][1:]
    assert losses[-1] < losses[0] / 2
    assert of_kind(folder, "validation")[-1].values["mean_recall"] > 0  # its captions are right answers


def test_negatives_come_from_a_locked_towers_table_too(
    tuned: RunFolder, tiny_vit: Path, push: Push, make_examples: Make
) -> None:
    shapes = [one.model_copy(update={"negatives": ["a dog", "a cat"]}) for one in make_examples(40, captions=1)]
    push("shapes-with-negatives", shapes)
    folder = start("locked", tiny_vit, train_data="shapes-with-negatives", lock_text=True, epochs=1)
    job = job_of(folder)

    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    assert batch.texts.shape[0] == 2 * len(batch)
    assert batch.positives is not None
    wrong = ~batch.positives.any(0)
    dog, cat = torch.from_numpy(job.clip.encode_texts(["a dog", "a cat"]))
    nearest = torch.minimum((batch.texts[wrong] - dog).norm(dim=1), (batch.texts[wrong] - cat).norm(dim=1))
    assert nearest.max() < 1e-5
    assert int(wrong.sum()) == len(batch)


def test_a_memory_is_part_of_a_checkpoint_bit_by_bit_and_of_no_estimate(tuned: RunFolder, tiny_vit: Path) -> None:
    settings = {
        "train_data": "shapes",
        "loss": "CrossBatchMemory",
        "loss_options": {"loss": {"name": "TripletMarginLoss", "margin": 0.2}, "memory_size": 24},
        "epochs": 3,
        "batch_size": 8,
        "check_pairs": False,
    }
    unbroken, broken = (start(f"memory-{name}", tiny_vit, **settings) for name in ("unbroken", "broken"))
    run_stage("train", unbroken.reference)
    asked = count(1)
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: next(asked) == 6))

    run_stage("train", broken.reference)

    for name in ("best", "chosen"):
        assert_equal(weights(broken, name), weights(unbroken, name))
    assert_equal(checkpoint(broken), checkpoint(unbroken))
    kept = checkpoint(unbroken)["loss"]
    job = prepare(unbroken, check_settings(unbroken.load().settings))
    drawn = np.concatenate([rows for epoch in (1, 2, 3) for rows in job.feed.plan(epoch)])
    assert kept["images_count"].item() == len(drawn)  # nothing of the batches that were only tried
    assert set(kept["images_labels"].tolist()) == set(drawn[-24:].tolist())


@pytest.mark.parametrize(("data", "loss", "options"), WITH_NEGATIVES[4:])
def test_two_processes_train_as_one(
    tuned: RunFolder, tiny_vit: Path, data: str, loss: str, options: dict[str, object]
) -> None:
    settings = {
        "train_data": data,
        "loss": loss,
        "loss_options": options,
        "batch_size": 11,
        "epochs": 2,
        "learning_rate": 1e-4,
        "check_pairs": False,
    }
    runs = [start(f"{loss}-in-{number}", tiny_vit, processes=number, **settings) for number in (1, 2)]
    for folder in runs:
        run_stage("train", folder.reference)

    one, two = ([event.values["loss"] for event in of_kind(folder, "validation")] for folder in runs)
    assert two == pytest.approx(one, rel=1e-4)
