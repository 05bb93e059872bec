"""Runs on pairs of pictures: trained, measured, shown, exported and searched by the image tower alone."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from attune.config import check_settings
from attune.data import store
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.errors import DataError, SettingsError, TrainingStopped
from attune.evaluation.kept_ranks import FILE, unpack
from attune.evaluation.measure import embed_captions, embed_items, pixels_of
from attune.evaluation.two_runs import compare
from attune.models.clip import load_folder
from attune.report.card import model_card
from attune.room import count as counts_of
from attune.room import disk_needed
from attune.runs.folder import RunFolder
from attune.runs.models import load_named
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.display import datasets_table, examples_tables, metrics_table, runs_table
from client.search import search_documents
from tests.attune.matches import drawings
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.texts import questions
from tests.attune.trained import QUICK, of_kind, start, validations
from tests.client.test_client import printed
from tests.conftest import coloured_examples

Push = Callable[..., DatasetReport]

LEARNT = {"train_data": "drawings", "epochs": 16, "learning_rate": 1e-2, "eval_split": 0.25, "augmentation": "light"}
FEW = {"train_data": "few", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path, push: Push) -> RunFolder:
    """A run on pairs of pictures that went through all stages; its home has them as `drawings`, and others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("matches")))
        push("drawings", drawings(matches=2))
        push("few", drawings(40))
        push("shapes", coloured_examples())
        push("questions", questions(24))
        folder = start("tuned", f"{tiny_vit}#scratch", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_a_model_learns_which_pictures_belong_together(tuned: RunFolder) -> None:
    (_, _, before), *_ = validations(tuned)
    run = tuned.load()

    assert run.training.best_recall > before + 0.2
    result = run.evaluation
    for direction in ("match_to_picture", "picture_to_match"):
        assert result.after[f"{direction}_recall@10"] > result.before[f"{direction}_recall@10"] + 0.3
        assert result.difference_low[f"{direction}_recall@10"] > 0
    assert (result.images, result.texts, result.captions, result.matches) == (24, 0, 0, 48)


def test_the_text_tower_stays_as_it_was(tuned: RunFolder) -> None:
    first, last = (load_file(path) for path in (tuned.start_weights, tuned.chosen_weights))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}

    assert moved == {"visual", "logit_scale"}
    assert tuned.load().settings["lock_text"] is True


def test_figures_are_named_for_pictures_and_matches(tuned: RunFolder) -> None:
    lines = [event.message for event in tuned.events()]
    facts = json.loads((tuned.report / "metrics.json").read_text())
    ranks = unpack((tuned.path / FILE).read_bytes())
    directions = {"match_to_picture", "picture_to_match"}

    [last] = [line for line in lines if line.startswith("epoch 10:")]
    assert "match->picture recall@5" in last
    assert "picture->match" in last
    assert "measuring the model before training: 24 held-out pictures with 48 matches" in lines
    assert {name.split("_recall")[0] for name in facts["after"] if "recall@" in name} == directions
    assert set(ranks) == {f"{direction}_{part}" for direction in directions for part in ("before", "after", "picture")}
    assert len(ranks["match_to_picture_after"]) == 2 * len(ranks["picture_to_match_after"]) == 48
    sections = [section["name"] for section in facts["sections"]]
    assert sections == ["retrieval", "finetuner", "linear_probe", "neighbours"]
    assert "preprocessing" in facts["fingerprints"]
    assert set(facts["wins"]) == directions
    assert facts["slices_of"] == "Match to picture recall@5"
    assert {part["tag"] for part in facts["slices"]} == {"training data"}  # keys have no length in words


def test_figures_are_those_of_the_image_tower_on_both_sides(tuned: RunFolder) -> None:
    run = tuned.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    clip = load_folder(tuned.artifact)
    cache = pixels_of(clip, test)
    assert cache is not None
    pictures, matches = (clip.encode_images(cache.pixels[cache.rows(keys)]) for keys in (test.images, test.texts))
    own = np.repeat(np.arange(len(test)), 2)
    first = [bool(own[row] == query) for query, row in enumerate((pictures @ matches.T).argmax(1))]

    assert run.evaluation.after["picture_to_match_recall@1"] == pytest.approx(np.mean(first))
    assert run.artifact.max_difference < 1e-5


def test_the_report_shows_pictures_on_both_sides(tuned: RunFolder) -> None:
    page = (tuned.report / "index.html").read_text()
    card = model_card(tuned.load())
    examples = json.loads((tuned.report / "examples.json").read_text())

    assert "24 pictures with 48 matches" in page
    assert "Drawn at random, picture to match" in page
    assert "Better, match to picture" in page
    articles = page.split("<article")[1:]
    assert len(articles) > 6
    for article in articles:
        assert article.count("<img") == 11  # the query's, and five of each model
    assert '<div class="hits texts' not in page
    assert "embedded by the image tower" in page
    assert "made for pictures with captions" in page
    assert "On 24 held-out pictures with 48 matches." in card
    assert "image-feature-extraction" in card
    shown = [example for example in examples if example["kind"] == "random"]
    assert len(shown) == 12
    for example in shown:
        for hit in example["hits_after"]:
            assert (hit["image"] == example["image"]) == (hit["match"] // 2 == example["image"])
    with Image.open(tuned.report / "examples.png") as sheet:
        colours = sheet.convert("RGB").getcolors(1_000_000)
    assert colours is not None
    assert len(colours) > 20


def test_the_terminal_speaks_of_pictures_and_matches(tuned: RunFolder) -> None:
    run = tuned.load()
    examples = json.loads((tuned.report / "examples.json").read_text())

    assert "tuned: 24 held-out pictures with 48 matches" in printed(metrics_table(run))
    assert "✓ a match of the picture" in printed(examples_tables(examples, ("before", "after"), 1, run.evaluation.kind))
    assert "(picture to match)" in printed(runs_table([run]), 200)
    assert "96 pictures with 192 matches" in printed(datasets_table(store.list_datasets()))


def test_matches_are_indexed_and_searched_by_a_picture(tuned: RunFolder) -> None:
    examples = drawings(60)
    documents = list(search_documents([*examples, examples[0]]))
    encoder, index = load_encoder("tuned", towers="image"), Index("drawings")
    embed(encoder, documents)
    index.upsert(documents)
    asked = [SearchDocument(image=example.image) for example in examples]
    embed(encoder, asked)

    found = index.search(asked, 10)

    assert index.count() == 60  # each match once
    key_of = {example.source: one.key for example, one in zip(examples, documents, strict=False)}
    right = [key_of[one.source] in [match.key for match in hits] for hits, one in zip(found, examples, strict=True)]
    assert np.mean(right) > 0.35  # by chance one in six
    assert {match.text for match in found[0]} <= {one.label for one in examples}


def test_a_resumed_training_ends_at_the_weights_of_an_unbroken_one(tuned: RunFolder, tiny_vit: Path) -> None:
    more = {**FEW, "hard_negatives": 0.5, "augmentation": "light"}
    unbroken, broken = (start(name, f"{tiny_vit}#scratch", **more) for name in ("unbroken", "broken"))
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


def test_pieces_of_a_batch_teach_what_the_whole_batch_does(tuned: RunFolder, tiny_vit: Path) -> None:
    more = {**FEW, "epochs": 1, "multi_positive": True, "train_data": "drawings", "check_pairs": False}
    whole, pieces = (
        start("whole", f"{tiny_vit}#scratch", **more),
        start("pieces", f"{tiny_vit}#scratch", **more, micro_batch_size=3),
    )
    for folder in (whole, pieces):
        run_stage("train", folder.reference)

    assert [loss for _, loss, _ in validations(pieces)][1:] == pytest.approx(
        [loss for _, loss, _ in validations(whole)][1:], rel=1e-4
    )


def test_both_sides_are_augmented_each_picture_by_itself(tuned: RunFolder, tiny_vit: Path) -> None:
    folder = start("changed", f"{tiny_vit}#scratch", **{**FEW, "augmentation": "strong"})
    job = prepare(folder, check_settings(folder.load().settings))
    batch = job.feed.load(1, 0, job.feed.plan(1)[0])

    assert batch.texts.dtype == torch.uint8
    assert batch.texts.shape == batch.images.shape
    rows = job.cache.rows(job.parts.train.images)[batch.rows]
    matches = job.cache.rows(job.parts.train.texts)
    assert all(not np.array_equal(found, job.cache.pixels[row]) for found, row in zip(batch.images, rows, strict=True))
    assert all(not any(np.array_equal(found, job.cache.pixels[row]) for row in matches) for found in batch.texts)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("MultipleNegativesRankingLoss", {"symmetric": True}),
        ("CrossBatchMemory", {"loss": {"name": "TripletMarginLoss"}, "memory_size": 48}),
    ],
)
def test_losses_of_queries_and_with_a_memory_take_matches(
    tuned: RunFolder, tiny_vit: Path, loss: str, options: dict[str, object]
) -> None:
    changes = {**LEARNT, "epochs": 4, "loss": loss, "loss_options": options}
    start(f"by-{loss}", f"{tiny_vit}#scratch", **changes)
    training = run_stage("train", f"by-{loss}").training

    assert training.best_recall > training.start_recall + 0.1


@pytest.mark.parametrize("loss", ["CoSENTLoss", "MarginMSELoss"])
def test_losses_of_scores_and_margins_are_refused(tuned: RunFolder, tiny_vit: Path, loss: str) -> None:
    with pytest.raises(DataError, match=f"loss = '{loss}' takes a .*'few'"):
        validate(FinetuningRun(name="refused", settings={**QUICK, "model": str(tiny_vit), **FEW, "loss": loss}))


def test_a_callback_lets_pictures_look_among_matches(tuned: RunFolder, tiny_vit: Path) -> None:
    callback = {"query_data": "few", "limit": 5, "gather_examples": True}

    folder = start("watched", f"{tiny_vit}#scratch", **FEW, callbacks=[callback])
    run_stage("train", "watched")

    looks = of_kind(folder, "callback")
    assert [look.values["epoch"] for look in looks] == [0, 1, 2]
    pairs, clip = load_pairs(store.describe("few").fingerprint), load_named(str(tiny_vit))
    cache = pixels_of(clip, pairs)
    scores = embed_items(clip, pairs, cache) @ embed_captions(clip, pairs, cache).T
    labels = np.asarray(pairs.labels)
    hits = (labels[np.argsort(-scores, axis=1)[:, :5]] == labels[:, None]).any(1)
    assert looks[0].values["hit"] == pytest.approx(hits.mean())
    gathered = json.loads((folder.report / "callback-1.json").read_text())["examples"]
    assert {example["query"] for example in gathered} <= set(pairs.names)
    assert {hit["answer"] for example in gathered for hit in example["hits"]} <= set(pairs.caption_names)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"eval_data": "shapes"}, DataError, "'shapes' holds pictures with captions and 'few' holds pairs of pictures"),
        ({"retention_data": "questions"}, DataError, "'questions' holds pairs of texts and 'few' holds pairs of pictures"),
        ({"callbacks": [{"query_data": "shapes"}]}, DataError, "'shapes' holds pictures with captions"),
        (
            {"eval_data": "shapes", "retention_data": "questions"},
            DataError,
            "'shapes' holds pictures with captions, 'questions' holds pairs of texts and 'few' holds pairs of pictures",
        ),
        ({"callbacks": [{"query_data": "few", "model": "clip-vision"}]}, SettingsError, "callbacks name a model"),
        ({"lock_image": True}, SettingsError, "nothing would be left to train"),
        ({"word_dropout": 0.1}, SettingsError, r"word_dropout = 0\.1 changes captions"),
        ({"caption_mixing": 0.5}, SettingsError, r"caption_mixing = 0\.5 changes captions"),
        ({"prompt_templates": "simple"}, SettingsError, "'simple' are for pictures with captions"),
        ({"model_options": {"context_length": 8}}, SettingsError, "context_length = 8"),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "text_to_image_mrr"}]},
            SettingsError,
            "and this holds pairs of pictures. Its figures begin with match_to_picture and picture_to_match",
        ),
    ],
)
def test_what_does_not_go_with_pairs_of_pictures_is_refused_before_it_is_loaded(
    tuned: RunFolder, tiny_vit: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    settings = {**QUICK, "model": str(tiny_vit), **FEW, **changes}
    if settings.get("eval_data"):
        del settings["eval_split"]
    run = FinetuningRun(name="refused", settings=settings)

    with pytest.raises(error, match=said):
        validate(run)


def test_shuffled_matches_are_refused(tuned: RunFolder, push: Push) -> None:
    examples = drawings()
    matches = [example.images for example in examples]
    for example, wrong in zip(examples, matches[7:] + matches[:7], strict=True):
        example.images = wrong
    push("shifted", examples)
    start("shuffled", "tuned", train_data="shifted", epochs=1, continue_optimizer=False)

    with pytest.raises(
        DataError, match=r"no better than shuffled ones.*match->picture recall@5 .*Likely matches are shifted"
    ):
        run_stage("train", "shuffled")


def test_two_models_are_compared_on_pairs_of_pictures(tuned: RunFolder, tiny_vit: Path) -> None:
    runs = []
    for name, model in (("after", "tuned"), ("start", str(tiny_vit))):
        RunFolder.create(FinetuningRun(name=name, settings={"model": model, "eval_data": "few", "devices": "cpu"}))
        run_stage("validate", name)
        runs.append(run_stage("evaluate", name))

    rows = {row.metric: row for row in compare(*runs).rows}
    assert rows["picture_to_match_recall@10"].before > rows["picture_to_match_recall@10"].after
    assert any("training pictures" in warning for warning in runs[0].evaluation.warnings)  # of the run the model is from
    assert any("Held-out matches" in warning for warning in runs[0].evaluation.warnings)


def test_what_a_run_on_pairs_of_pictures_takes_is_known_before_it_is_validated(
    tuned: RunFolder, tiny_vit: Path, push: Push
) -> None:
    of_pairs, of_captions = (
        counts_of(check_settings({"model": str(tiny_vit), "train_data": name})) for name in ("drawings", "shapes")
    )

    assert of_pairs is not None
    assert of_captions is not None
    assert of_pairs.trainable < of_captions.trainable
    assert of_pairs.weights == of_captions.weights
    runs = [
        FinetuningRun(name="new", settings={"model": str(tiny_vit), "train_data": name}) for name in ("drawings", "other")
    ]
    push("other", drawings(10, matches=2))
    there, needed = (disk_needed(run, of_pairs) for run in runs)
    assert needed - there == 30 * of_pairs.pixels  # of the others the pixels are there
