"""Embeddings with labels and no matches: read, checked and stored, learnt from by an `mlp`, measured among themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from attune.config import check_settings
from attune.data import store
from attune.data.embeddings import to_bytes
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.data.pixels import open_embeddings
from attune.data.read import read_examples
from attune.data.validate import validate_examples
from attune.errors import DataError, SettingsError
from attune.evaluation.kept_ranks import FILE, unpack
from attune.kinds import SINGLE_EMBEDDING
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.stages import run_stage
from attune.validation import validate
from client.display import examples_tables, metrics_table, runs_table
from client.search import search_documents, search_query
from tests.attune.embeddings import DIMENSION, notes, sounds, vectors
from tests.attune.singles import shapes
from tests.attune.test_val_data import begun, settings_of
from tests.attune.trained import QUICK, of_kind, start
from tests.client.test_client import printed

Push = Callable[..., DatasetReport]

ONE, OTHER = [1.0, 2.0, -3.5], [0.5, 0.0, 1.0]
LEARNT = {"train_data": "notes", "epochs": 15, "learning_rate": 1e-2, "eval_split": 0.25, "augmentation": "auto"}
FEW = {"train_data": "few", "epochs": 1, "batch_size": 8, "eval_split": 0.3, "val_split": 0.3, "augmentation": "auto"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, push: Push) -> RunFolder:
    """A run on labelled embeddings that went through all stages; its home has them as `notes`, and other data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("notes")))
        push("notes", notes(240))
        push("few", notes(48))
        push("sounds", sounds(40))
        push("shapes", shapes(24))
        folder = start("tuned", "mlp", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_pushed_embeddings_are_counted_and_found_again(attune_home: Path, push: Push) -> None:
    report = push("notes", notes(20))

    assert (report.kind, report.images, report.belonging, report.dimension) == (SINGLE_EMBEDDING, 20, 0, DIMENSION)
    assert report.counted == "20 embeddings"
    assert store.list_datasets()[0].kind is SINGLE_EMBEDDING
    pairs = load_pairs(report.fingerprint)
    assert (pairs.kind, pairs.dimension, len(pairs), pairs.texts) == (SINGLE_EMBEDDING, DIMENSION, 20, [])
    assert sorted(pairs.labels) == sorted(example.label for example in notes(20))
    stored = list(read_examples(store.content_folder(report.fingerprint)))
    assert push("again", stored).fingerprint == report.fingerprint


def test_an_embedding_may_be_alone_that_has_a_label() -> None:
    good, problems = validate_examples(
        [
            TrainingExample(embedding=ONE, label="bell"),
            TrainingExample(embedding=ONE),
            TrainingExample(embedding=ONE, label="bell", captions=["a bell"]),
            TrainingExample(embedding=ONE, label="bell", negatives=["a drum"]),
            TrainingExample(embedding=ONE, label="bell", embeddings=[ONE]),
            TrainingExample(embedding=[0.0, 0.0], label="bell"),
        ]
    )

    assert [(one.image, one.label) for one in good] == [(to_bytes(ONE), "bell")]
    assert [(problem.source, problem.reason) for problem in problems] == [
        ("example 2", "missing_match"),
        ("example 3", "two_kinds"),
        ("example 4", "two_kinds"),
        ("example 5", "same_picture"),
        ("example 6", "unreadable_embedding"),
    ]
    assert "or its class as a label" in problems[0].advice
    assert "negatives beside an embedding" in problems[2].advice


def test_embeddings_with_matches_and_without_do_not_make_one_dataset(attune_home: Path, push: Push) -> None:
    with pytest.raises(DataError, match="5 of its 7 embeddings have no matches"):
        push("mixed", [*sounds(2), *notes(7)[2:]])


@pytest.mark.parametrize("item", ["embedding", "embedding1"])
def test_tables_of_embeddings_and_labels_are_read(tmp_path: Path, item: str) -> None:
    rows = vectors(3)[:, 0]
    columns = {item: list(rows), "class": ["a", "b", "a"], "text": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), tmp_path / "notes.parquet")
    np.save(tmp_path / "one.npy", np.asarray(ONE))
    np.save(tmp_path / "other.npy", np.asarray(OTHER))
    (tmp_path / "notes.csv").write_text(f"{item},label\none.npy,bell\nother.npy,drum\n")

    of_parquet, of_csv = (list(read_examples(tmp_path / f"notes.{suffix}")) for suffix in ("parquet", "csv"))

    assert [(one.image, one.label, one.text, one.tags) for one in of_parquet] == [
        (to_bytes(row), label, "", {"text": text}) for row, label, text in zip(rows, "aba", "xyz", strict=True)
    ]
    good, problems = validate_examples(of_csv)
    assert problems == []
    assert [(one.image, one.label) for one in good] == [(to_bytes(ONE), "bell"), (to_bytes(OTHER), "drum")]


def test_pictures_with_labels_are_taken_before_embeddings(tmp_path: Path) -> None:
    image = shapes(1)[0].image
    pq.write_table(pa.table({"image": [image], "embedding": [ONE], "label": ["red"]}), tmp_path / "both.parquet")

    [example] = read_examples(tmp_path / "both.parquet")

    assert (example.image, example.label) == (image, "red")


def test_an_mlp_learns_from_labels_alone(tuned: RunFolder) -> None:
    run = tuned.load()
    result = run.evaluation

    assert result.after["embedding_to_embedding_recall@1"] > result.before["embedding_to_embedding_recall@1"] + 0.2
    assert result.difference_low["embedding_to_embedding_recall@1"] > 0
    assert (result.images, result.texts, result.captions, result.matches, result.dimension) == (60, 0, 0, 0, DIMENSION)
    assert result.kind is SINGLE_EMBEDDING
    assert run.training.recipe["sampler"] == "class"
    assert run.artifact.max_difference < 1e-6


def test_before_is_what_the_given_embeddings_find(tuned: RunFolder) -> None:
    run, facts = tuned.load(), json.loads((tuned.report / "metrics.json").read_text())
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    cache = open_embeddings(test.fingerprint)
    given = cache.pixels[cache.rows(test.images)]
    scores = given @ given.T / np.outer(*[np.linalg.norm(given, axis=1)] * 2)
    np.fill_diagonal(scores, -1)
    labels = np.asarray(test.labels)

    right = labels[scores.argmax(1)] == labels
    assert run.evaluation.before["embedding_to_embedding_recall@1"] == pytest.approx(right.mean())
    ranks = unpack((tuned.path / FILE).read_bytes())
    assert set(ranks) == {f"embedding_to_embedding_{part}" for part in ("before", "after", "picture")}
    assert {section["name"] for section in facts["sections"]} >= {"retrieval", "linear_probe", "neighbours"}


def test_it_is_shown_by_labels_and_keys(tuned: RunFolder) -> None:
    page, run = (tuned.report / "index.html").read_text(), tuned.load()
    examples = json.loads((tuned.report / "examples.json").read_text())
    card = ModelCard((tuned.artifact / "README.md").read_text())

    assert "60 embeddings" in page
    assert "<img" not in page
    assert "image tower" not in page
    assert " with 0 " not in page
    assert "those of its label are right" in page
    assert "the same given embeddings" in page
    assert "On 60 held-out embeddings." in card.text
    assert card.data.pipeline_tag == "feature-extraction"
    assert "measuring the model before training: 60 held-out embeddings" in [event.message for event in tuned.events()]
    assert "tuned: 60 held-out embeddings" in printed(metrics_table(run))
    assert "(embedding to embedding)" in printed(runs_table([run]), 200)
    said = printed(examples_tables(examples, ("before", "after"), 2, run.evaluation.kind))
    assert "✓ of the same label; embeddings go by label and SHA-256" in said


def test_labelled_embeddings_are_indexed_and_searched(tuned: RunFolder) -> None:
    examples, index = notes(60), Index("notes")
    encoder = load_encoder("tuned")
    documents = list(search_documents(read_examples(examples)))
    embed(encoder, documents)
    index.upsert(documents)
    asked = [search_query(list(example.embedding)) for example in examples]
    embed(encoder, asked)

    found = index.search(asked, 2)

    assert [hits[0].key for hits in found] == [example.source for example in examples]
    assert [hits[0].text for hits in found] == [example.label for example in examples]


@pytest.mark.parametrize(
    "settings",
    [
        {"micro_batch_size": 3, "model_options": {"output_dim": 12}},
        {"model_options": {"hidden_sizes": [], "output_dim": 40}, "loss": "SupConLoss"},
        {"loss": "ArcFaceLoss", "hard_negatives": 1},
    ],
    ids=["pieces", "linear", "classes"],
)
def test_ways_to_train_work_without_matches(
    tuned: RunFolder, settings: dict[str, object], request: pytest.FixtureRequest
) -> None:
    folder = start(f"way-{request.node.callspec.id}", "mlp", **FEW, **settings)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, folder.reference)

    losses = [event.values["loss"] for event in of_kind(folder, "progress")]
    assert losses
    assert np.isfinite(losses).all()


def test_a_model_learns_from_matches_and_is_measured_by_labels(tuned: RunFolder, push: Push) -> None:
    """And what it learnt as a match is found again among held-out ones."""
    fresh, seen = notes(240)[60:], [example.embeddings[0] for example in sounds(40)[:3]]
    push("held-out", [*fresh[:50], *(TrainingExample(embedding=one, label="high loud") for one in seen)])
    push("chosen-by", fresh[50:])
    more = {"eval_data": "held-out", "val_data": "chosen-by", "epochs": 1, "augmentation": "auto"}

    folder = begun("by-matches", "mlp", train_data="sounds", **more)
    for stage in ("train", "evaluate"):
        run_stage(stage, "by-matches")

    result = folder.load().evaluation
    assert (result.kind, result.images) == (SINGLE_EMBEDDING, 53)
    assert "embeddings that are training embeddings, or are nearly one: 3" in " ".join(result.warnings)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"model": "starter"}, SettingsError, "'starter' embeds images and texts, and the data holds embeddings"),
        ({"loss": "CLIPLoss"}, SettingsError, "CLIPLoss.*single embeddings"),
        ({"retention_data": "sounds"}, DataError, "'sounds' holds pairs of embeddings and 'few' holds single embeddings"),
        ({"retention_data": "shapes"}, DataError, "'shapes' holds single pictures and 'few' holds single embeddings"),
        ({"augmentation": "light"}, SettingsError, "augmentation = 'light' changes pictures"),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "embedding_to_match_mrr"}]},
            SettingsError,
            "figures begin with embedding_to_embedding",
        ),
    ],
)
def test_what_does_not_go_with_single_embeddings_is_refused(
    tuned: RunFolder, settings: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        validate(FinetuningRun(name="refused", settings={**QUICK, "model": "mlp", **FEW, **settings}))


def test_pictures_teach_no_model_of_embeddings(tuned: RunFolder) -> None:
    settings = settings_of("starter", train_data="shapes", eval_data="few", val_data="notes", augmentation="auto")
    with pytest.raises(DataError, match="image tower would learn from pictures and an `mlp` be measured on embeddings"):
        validate(FinetuningRun(name="refused", settings=settings))
