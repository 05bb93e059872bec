"""Runs on pairs of texts: trained, measured, shown, exported and searched by the text tower alone."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attune.config import check_settings
from attune.data import store
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.errors import DataError, SettingsError, TrainingStopped
from attune.evaluation.kept_ranks import FILE, unpack
from attune.evaluation.two_runs import compare
from attune.models.architecture import CONFIG
from attune.models.clip import load_folder
from attune.report.card import model_card
from attune.room import count as counts_of
from attune.runs.folder import RunFolder
from attune.runs.models import load_named
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument, TrainingExample
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.display import datasets_table, examples_tables, metrics_table, runs_table
from client.search import search_documents
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.texts import questions
from tests.attune.trained import QUICK, of_kind, start, validations
from tests.client.test_client import printed

Push = Callable[..., DatasetReport]
Make = Callable[..., list[TrainingExample]]

LEARNT = {"train_data": "questions", "epochs": 10, "learning_rate": 1e-2, "eval_split": 0.25}
FEW = {"train_data": "few", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path, make_examples: Make, push: Push) -> RunFolder:
    """A run on pairs of texts that went through all stages; its home has them as `questions`, and pictures as `shapes`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("texts")))
        push("questions", questions())
        push("few", questions(40, documents=1))
        push("shapes", make_examples(24))
        folder = start("tuned", f"{tiny_vit}#scratch", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_a_model_learns_which_documents_belong_to_a_query(tuned: RunFolder) -> None:
    (_, _, before), *_ = validations(tuned)
    run = tuned.load()

    assert run.training.best_recall > before + 0.2
    result = run.evaluation
    for direction in ("document_to_query", "query_to_document"):
        assert result.after[f"{direction}_recall@1"] > result.before[f"{direction}_recall@1"] + 0.2
        assert result.difference_low[f"{direction}_recall@1"] > 0
    assert (result.images, result.texts, result.captions) == (0, 25, 50)


def test_the_image_tower_stays_as_it_was_and_no_pixels_are_kept(tuned: RunFolder) -> None:
    first, last = (load_file(path) for path in (tuned.start_weights, tuned.chosen_weights))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}

    assert "visual" not in moved
    assert {"token_embedding", "transformer", "text_projection"} <= moved
    assert tuned.load().settings["lock_image"] is True
    assert not list(store.content_folder(tuned.load().train_fingerprint).glob("pixels-*"))


def test_figures_are_named_for_queries_and_documents(tuned: RunFolder) -> None:
    lines = [event.message for event in tuned.events()]
    facts = json.loads((tuned.report / "metrics.json").read_text())
    ranks = unpack((tuned.path / FILE).read_bytes())

    [last] = [line for line in lines if line.startswith("epoch 10:")]
    assert "document->query recall@5" in last
    assert "query->document" in last
    assert not [line for line in lines if "picture" in line.replace("which is for pictures", "")]
    assert {name.split("_recall")[0] for name in facts["after"] if "recall@" in name} == {
        "document_to_query",
        "query_to_document",
    }
    assert set(ranks) == {
        f"{direction}_{part}"
        for direction in ("document_to_query", "query_to_document")
        for part in ("before", "after", "picture")
    }
    assert len(ranks["document_to_query_after"]) == 2 * len(ranks["query_to_document_after"]) == 50
    sections = [section["name"] for section in facts["sections"]]
    assert sections == ["retrieval", "finetuner", "linear_probe", "neighbours"]
    assert "preprocessing" not in facts["fingerprints"]
    assert set(facts["wins"]) == {"document_to_query", "query_to_document"}
    assert facts["slices_of"] == "Document to query recall@5"
    assert {part["tag"] for part in facts["slices"]} == {"document length"}


def test_figures_are_those_of_the_text_tower_on_both_sides(tuned: RunFolder) -> None:
    run = tuned.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    clip = load_folder(tuned.artifact)
    queries, documents = clip.encode_texts(test.queries), clip.encode_texts(test.texts)
    own = np.repeat(np.arange(len(test)), 2)
    first = [bool(own[row] == query) for query, row in enumerate((queries @ documents.T).argmax(1))]

    assert run.evaluation.after["query_to_document_recall@1"] == pytest.approx(np.mean(first))
    assert run.artifact.max_difference < 1e-5


def test_the_report_shows_texts_escaped_in_place_of_pictures(tuned: RunFolder) -> None:
    page = (tuned.report / "index.html").read_text()
    card = model_card(tuned.load())

    assert "&lt;b&gt;north&lt;/b&gt;" in page
    assert "<b>north</b>" not in page
    assert "<img" not in page
    assert not (tuned.report / "examples.png").exists()
    assert "25 queries with 50 documents" in page
    assert "Drawn at random, query to document" in page
    assert page.count("picture") == page.count("zero-shot classification are made for pictures") == 1
    assert "On 25 held-out queries with 50 documents." in card
    assert "picture" not in card
    examples = json.loads((tuned.report / "examples.json").read_text())
    shown = [example for example in examples if example["kind"] == "random"]
    known = {example.text: example.captions for example in questions()}
    assert len(shown) == 12
    for example in shown:
        right = [hit["caption"] for hit in example["hits_after"] if hit["image"] == example["image"]]
        assert set(right) <= set(known[example["query"]])


def test_the_terminal_speaks_of_queries_and_documents(tuned: RunFolder) -> None:
    run = tuned.load()
    examples = json.loads((tuned.report / "examples.json").read_text())

    assert "tuned: 25 held-out queries with 50 documents" in printed(metrics_table(run))
    assert "pictures" not in printed(metrics_table(run))
    assert "✓ a document of the query" in printed(examples_tables(examples, ("before", "after"), 1, run.evaluation.kind))
    assert "(query to document)" in printed(runs_table([run]), 200)
    assert " queries with " in printed(datasets_table(store.list_datasets()))


def test_documents_are_indexed_and_searched_by_a_query(tuned: RunFolder) -> None:
    examples = questions(60)
    documents = list(search_documents([*examples, examples[0]]))
    encoder, index = load_encoder("tuned", towers="text"), Index("answers")
    embed(encoder, documents)
    index.upsert(documents)
    asked = [SearchDocument(text=example.text) for example in examples]
    embed(encoder, asked)

    found = index.search(asked, 2)

    assert index.count() == 120  # each document once
    right = [any(match.text in one.captions for match in hits) for hits, one in zip(found, examples, strict=True)]
    assert np.mean(right) > 0.3  # by chance one in thirty


def test_a_resumed_training_ends_at_the_weights_of_an_unbroken_one(tuned: RunFolder, tiny_vit: Path) -> None:
    unbroken, broken = (start(name, f"{tiny_vit}#scratch", **FEW, hard_negatives=0.5) for name in ("unbroken", "broken"))
    run_stage("train", "unbroken")
    asked = count(1)
    settings = check_settings(broken.load().settings)
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, settings, stop=lambda: next(asked) == 6))
    assert (broken.checkpoints / "within.pt").exists()

    run_stage("train", "broken")

    for name in ("best", "chosen"):
        assert_equal(weights(broken, name), weights(unbroken, name))
    assert_equal(checkpoint(broken), checkpoint(unbroken))


def test_pieces_of_a_batch_of_texts_teach_what_the_whole_batch_does(tuned: RunFolder, tiny_vit: Path) -> None:
    more = {**FEW, "epochs": 1, "multi_positive": True, "train_data": "questions", "check_pairs": False}
    whole, pieces = (
        start("whole", f"{tiny_vit}#scratch", **more),
        start("pieces", f"{tiny_vit}#scratch", **more, micro_batch_size=3),
    )
    for folder in (whole, pieces):
        run_stage("train", folder.reference)

    assert [loss for _, loss, _ in validations(pieces)][1:] == pytest.approx(
        [loss for _, loss, _ in validations(whole)][1:], rel=1e-4
    )


def test_a_callback_lets_queries_look_among_documents(tuned: RunFolder, tiny_vit: Path) -> None:
    callback = {"query_data": "few", "limit": 5, "gather_examples": True}

    folder = start("watched", f"{tiny_vit}#scratch", **FEW, callbacks=[callback])
    run_stage("train", "watched")

    looks = of_kind(folder, "callback")
    assert [look.values["epoch"] for look in looks] == [0, 1, 2]
    pairs, clip = load_pairs(store.describe("few").fingerprint), load_named(str(tiny_vit))
    scores = clip.encode_texts(pairs.queries) @ clip.encode_texts(pairs.texts).T
    labels = np.asarray(pairs.labels)
    hits = (labels[np.argsort(-scores, axis=1)[:, :5]] == labels[:, None]).any(1)
    assert looks[0].values["hit"] == pytest.approx(hits.mean())
    gathered = json.loads((folder.report / "callback-1.json").read_text())["examples"]
    assert {example["query"] for example in gathered} <= set(pairs.queries)
    assert {hit["answer"] for example in gathered for hit in example["hits"]} <= set(pairs.texts)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"eval_data": "shapes"},
            DataError,
            "of one kind, but 'shapes' holds pictures with captions and 'few' holds pairs of texts",
        ),
        ({"retention_data": "shapes"}, DataError, "'shapes' holds pictures"),
        (
            {"train_data": "shapes", "retention_data": "few"},
            DataError,
            "'shapes' holds pictures with captions and 'few' holds pairs of texts",
        ),
        ({"callbacks": [{"query_data": "shapes"}]}, DataError, "'shapes' holds pictures"),
        ({"callbacks": [{"query_data": "few", "model": "clip-text"}]}, SettingsError, "callbacks name a model"),
        ({"lock_text": True}, SettingsError, "nothing would be left to train"),
        ({"augmentation": "light"}, SettingsError, "augmentation = 'light' changes pictures"),
        ({"prompt_templates": "simple"}, SettingsError, "'simple' are for pictures"),
        ({"model_options": {"image_size": 64}}, SettingsError, "image_size = 64"),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "text_to_image_mrr"}]},
            SettingsError,
            "that holds pictures with captions, and this holds pairs of texts. Its figures begin with document_to_query and",
        ),
    ],
)
def test_what_does_not_go_with_pairs_of_texts_is_refused_before_it_is_loaded(
    tuned: RunFolder, tiny_vit: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    settings = {**QUICK, "model": str(tiny_vit), **FEW, **changes}
    if settings.get("eval_data"):
        del settings["eval_split"]
    run = FinetuningRun(name="refused", settings=settings)

    with pytest.raises(error, match=said):
        validate(run)


def test_shuffled_documents_are_refused(tuned: RunFolder, push: Push) -> None:
    examples = questions(documents=1)
    captions = [example.captions for example in examples]
    for example, wrong in zip(examples, captions[1:] + captions[:1], strict=True):
        example.captions = wrong
    push("shifted", examples)
    start("shuffled", "tuned", train_data="shifted", epochs=1, continue_optimizer=False)

    with pytest.raises(DataError, match=r"no better than shuffled ones.*document->query recall@5 .* queries, p ="):
        run_stage("train", "shuffled")


def test_models_that_take_pictures_in_different_ways_are_compared_on_texts(
    tuned: RunFolder, tiny_vit: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_vit.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / CONFIG).read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (other / CONFIG).write_text(json.dumps(config))
    runs = []
    for name, model in (("plain", "tuned"), ("changed", str(other))):
        settings = {"model": model, "eval_data": "few", "baseline": str(tiny_vit), "devices": "cpu"}
        RunFolder.create(FinetuningRun(name=name, settings=settings))
        run_stage("validate", name)
        runs.append(run_stage("evaluate", name))

    assert runs[1].evaluation.before == runs[1].evaluation.after  # the text tower is the same
    rows = {row.metric: row for row in compare(*runs).rows}
    assert rows["query_to_document_recall@1"].before > rows["query_to_document_recall@1"].after
    assert any("training queries" in warning for warning in runs[0].evaluation.warnings)  # of the run the model is from


def test_what_a_run_on_texts_takes_is_known_before_it_is_validated(tuned: RunFolder, tiny_vit: Path) -> None:
    of_texts, of_pictures = (
        counts_of(check_settings({"model": str(tiny_vit), "train_data": name})) for name in ("questions", "shapes")
    )

    assert of_texts is not None
    assert of_pictures is not None
    assert of_texts.trainable < of_pictures.trainable
    assert of_texts.weights == of_pictures.weights
