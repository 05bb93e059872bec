"""Runs on single pictures and texts: trained by labels, measured among themselves, shown, exported and searched."""

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
from attune.evaluation.measure import embed_items, pixels_of
from attune.evaluation.two_runs import compare
from attune.losses.table import ALONE
from attune.models.clip import load_folder
from attune.report.card import model_card
from attune.runs.folder import RunFolder
from attune.runs.models import load_named
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.display import examples_tables, metrics_table, runs_table
from client.search import search_documents
from tests.attune.singles import sentences, shapes
from tests.attune.test_training import assert_equal, checkpoint
from tests.attune.texts import questions
from tests.attune.trained import QUICK, of_kind, start
from tests.client.test_client import printed
from tests.conftest import coloured_examples

Push = Callable[..., DatasetReport]

LEARNT = {"train_data": "shapes", "epochs": 20, "learning_rate": 1e-2, "eval_split": 0.25, "batch_size": 32}
FEW = {"train_data": "few", "epochs": 2, "batch_size": 8, "eval_split": 0.3, "val_split": 0.3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path, push: Push) -> RunFolder:
    """A run on labelled pictures that went through all stages; its home has them as `shapes`, and other data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("singles")))
        push("shapes", shapes())
        push("few", shapes(48))
        push("wishes", sentences(100))
        push("plain", sentences(60, labelled=False))
        push("questions", questions(40))
        push("captioned", coloured_examples())
        folder = start("tuned", f"{tiny_vit}#scratch", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_a_model_learns_from_labels_alone(tuned: RunFolder) -> None:
    run = tuned.load()

    assert run.training.best_recall > run.training.start_recall + 0.1
    result = run.evaluation
    assert result.difference_low["picture_to_picture_map@r"] > 0
    assert result.after["picture_to_picture_recall@1"] > result.before["picture_to_picture_recall@1"] + 0.2
    assert result.difference_low["picture_to_picture_recall@1"] > 0
    assert (result.images, result.texts, result.captions, result.matches) == (48, 0, 0, 0)
    assert run.training.recipe["sampler"] == "class"
    assert run.training.recipe["loss"] in ALONE


def test_the_tower_without_data_stays_as_it_was(tuned: RunFolder) -> None:
    first, last = (load_file(path) for path in (tuned.start_weights, tuned.chosen_weights))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}

    assert moved == {"visual"}  # and the temperature, of which these losses know nothing
    assert tuned.load().settings["lock_text"] is True


def test_weights_are_chosen_by_map_at_r(tuned: RunFolder) -> None:
    events = [event for kind in ("validation", "average") for event in of_kind(tuned, kind)]
    training = tuned.load().training

    assert training.start_recall == of_kind(tuned, "validation")[0].values["map@r"]
    assert training.best_recall >= max(event.values["map@r"] for event in events)
    assert not {"val_loss", "mean_recall"} & events[0].values.keys()
    assert "validation map@r" in of_kind(tuned, "result")[-1].message
    assert "Chosen by MAP@R on the validation part" in model_card(tuned.load(), {"embed_dim": 64})
    assert (tuned.report / "plots" / "map@r.png").is_file()


def test_figures_are_of_one_direction(tuned: RunFolder) -> None:
    lines = [event.message for event in tuned.events()]
    facts = json.loads((tuned.report / "metrics.json").read_text())
    ranks = unpack((tuned.path / FILE).read_bytes())

    [*_, last] = [line for line in lines if line.startswith("epoch ")]
    assert "picture->picture recall@5" in last
    assert "measuring the model before training: 48 held-out pictures" in lines
    assert not any(line.startswith("pairs:") for line in lines)  # there are none to shuffle
    assert {name.split("_recall")[0] for name in facts["after"] if "recall@" in name} == {"picture_to_picture"}
    assert set(ranks) == {f"picture_to_picture_{part}" for part in ("before", "after", "picture")}
    sections = {section["name"]: section for section in facts["sections"]}
    assert set(sections) == {"retrieval", "finetuner", "linear_probe", "neighbours"}
    assert "picture_to_picture_map@r" in {row["metric"] for row in sections["retrieval"]["rows"]}
    assert set(facts["wins"]) == {"picture_to_picture"}
    # The figures of the two tables are of the same ranks.
    rows = {row["metric"]: row["after"] for row in sections["retrieval"]["rows"]}
    assert rows["picture_to_picture_hit@1"] == pytest.approx(facts["after"]["picture_to_picture_recall@1"])


def test_figures_are_those_of_nearest_neighbours(tuned: RunFolder) -> None:
    run = tuned.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    clip = load_folder(tuned.artifact)
    cache = pixels_of(clip, test)
    assert cache is not None
    images = clip.encode_images(cache.pixels[cache.rows(test.images)])
    scores = images @ images.T
    np.fill_diagonal(scores, -1)
    labels = np.asarray(test.labels)

    right = labels[scores.argmax(1)] == labels
    assert run.evaluation.after["picture_to_picture_recall@1"] == pytest.approx(right.mean())
    at_r = []
    for row, order in enumerate((-scores).argsort(axis=1)):
        count = int((labels == labels[row]).sum()) - 1
        hits = (labels[order[:count]] == labels[row]).astype(float)
        at_r.append((np.cumsum(hits) / np.arange(1, count + 1) * hits).sum() / count)
    assert run.evaluation.after["picture_to_picture_map@r"] == pytest.approx(np.mean(at_r), abs=1e-3)  # ties apart


def test_the_report_shows_pictures_of_one_label(tuned: RunFolder) -> None:
    page = (tuned.report / "index.html").read_text()
    examples = json.loads((tuned.report / "examples.json").read_text())
    card = model_card(tuned.load(), {"embed_dim": 64})

    assert "48 pictures" in page
    assert "Picture to picture map@r rose from" in page
    assert "those of its label are right" in page
    assert "Validation MAP@R is on the part that chooses the weights" in " ".join(page.split())
    assert page.count("data:image/jpeg") > 20
    assert " with 0 " not in page
    assert "On 48 held-out pictures." in card
    assert (tuned.report / "examples.png").stat().st_size > 1000
    for example in examples:
        assert example["image"] not in [hit["image"] for hit in example["hits_after"]]  # not among its own answers
        label = example["query"].split()[0]
        assert [hit["right"] for hit in example["hits_after"]] == [
            hit["caption"].startswith(f"{label} ") for hit in example["hits_after"]
        ]
        first = next((place for place, hit in enumerate(example["hits_after"], start=1) if hit["right"]), None)
        assert first == (example["rank_after"] if example["rank_after"] <= 5 else None)


def test_the_terminal_speaks_of_labels(tuned: RunFolder) -> None:
    run = tuned.load()
    examples = json.loads((tuned.report / "examples.json").read_text())

    assert "tuned: 48 held-out pictures" in printed(metrics_table(run))
    assert "(picture to picture)" in printed(runs_table([run]), 200)
    assert "✓ of the same label" in printed(examples_tables(examples, ("before", "after"), 2, run.evaluation.kind))
    assert compare(run, run).rows[0].metric == "picture_to_picture_recall@1"


def test_pictures_are_indexed_and_searched_by_a_picture(tuned: RunFolder) -> None:
    encoder = load_encoder(str(tuned.artifact), towers="image")
    index = Index("shapes")
    examples = shapes(40)
    documents = list(search_documents(examples))
    embed(encoder, documents)
    index.upsert(documents)
    asked = [SearchDocument(image=examples[3].image)]
    embed(encoder, asked)

    [found] = index.search(asked, 5)

    assert (found[0].key, found[0].text) == (examples[3].source, examples[3].label)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tuned: RunFolder, tiny_vit: Path) -> None:
    whole, broken = (start(name, f"{tiny_vit}#scratch", **FEW) for name in ("whole", "broken"))
    run_stage("train", "whole")
    calls = count()
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: next(calls) >= 3))
    run_stage("train", "broken")

    assert_equal(checkpoint(whole), checkpoint(broken))


@pytest.mark.parametrize("settings", [{"micro_batch_size": 3}, {"lora_rank": 2}, {"miner": "BatchHardMiner"}])
def test_ways_to_train_work_without_captions(tuned: RunFolder, tiny_vit: Path, settings: dict[str, object]) -> None:
    name = f"way-{next(iter(settings)).replace('_', '-')}"
    folder = start(name, f"{tiny_vit}#scratch", **FEW, loss="TripletMarginLoss", **settings)
    run_stage("train", name)

    assert np.isfinite([event.values["loss"] for event in of_kind(folder, "progress")]).all()


@pytest.mark.parametrize("loss", ["ArcFaceLoss", "SupConLoss", "CrossBatchMemory"])
def test_losses_over_classes_and_over_pairs_learn_from_labels(tuned: RunFolder, tiny_vit: Path, loss: str) -> None:
    options = {"loss": "ContrastiveLoss"} if loss == "CrossBatchMemory" else {}
    name = f"by-{loss.lower()}"
    folder = start(name, f"{tiny_vit}#scratch", **FEW, loss=loss, loss_options=options)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, name)

    assert folder.load().training.recipe["loss"] == loss


def test_texts_learn_from_labels_too(tuned: RunFolder, tiny_vit: Path) -> None:
    folder = start("by-label", f"{tiny_vit}#scratch", **{**LEARNT, "train_data": "wishes", "augmentation": "auto"})
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "by-label")

    result = folder.load().evaluation
    assert (result.images, result.texts, result.counted) == (0, 25, "25 texts")
    assert result.after["text_to_text_recall@1"] > result.before["text_to_text_recall@1"]
    assert "25 texts" in (folder.report / "index.html").read_text()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"loss": "CLIPLoss"}, SettingsError, r"CLIPLoss.*single pictures.*ArcFaceLoss"),
        ({"lock_image": True}, SettingsError, "nothing would be left to train"),
        ({"word_dropout": 0.1}, SettingsError, "word_dropout"),
        ({"multi_positive": True}, SettingsError, "multi_positive"),
        ({"hard_negatives": 0.5}, SettingsError, r"hard_negatives = 0\.5.*pictures of a label meet"),
        ({"images_per_epoch": 20}, SettingsError, r"images_per_epoch = 20.*pass over all of them"),
        ({"train_data": "plain"}, DataError, "The 18 texts to measure on have no labels"),
        (
            {"retention_data": "captioned"},
            DataError,
            "'captioned' holds pictures with captions and 'few' holds single pictures",
        ),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "val_loss"}]},
            SettingsError,
            "such as picture_to_picture_map",
        ),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "text_to_image_mrr"}]},
            SettingsError,
            "figures begin with picture_to_picture",
        ),
    ],
)
def test_what_does_not_go_with_single_items_is_refused(
    tuned: RunFolder, tiny_vit: Path, settings: dict[str, object], error: type[Exception], said: str
) -> None:
    run = FinetuningRun(name="refused", settings={**QUICK, "model": str(tiny_vit), **FEW, **settings})

    with pytest.raises(error, match=said):
        validate(run)


def test_callbacks_look_for_others_of_a_label(tuned: RunFolder, tiny_vit: Path) -> None:
    watch = {"query_data": "few", "limit": 5}
    stop = {"kind": "early_stopping", "monitor": "picture_to_picture_recall@1", "patience": 1}
    folder = start("watched", f"{tiny_vit}#scratch", **FEW, callbacks=[watch, stop])
    run_stage("train", "watched")

    looks = of_kind(folder, "callback")
    pairs, clip = load_pairs(store.describe("few").fingerprint), load_named(str(tiny_vit))
    scores = (images := embed_items(clip, pairs, pixels_of(clip, pairs))) @ images.T
    np.fill_diagonal(scores, -1)
    labels = np.asarray(pairs.labels)
    hits = (labels[np.argsort(-scores, axis=1)[:, :5]] == labels[:, None]).any(1)
    assert looks[0].values["hit"] == pytest.approx(hits.mean())
    named = start("named", f"{tiny_vit}#scratch", **FEW, callbacks=[{**watch, "index_data": "few"}])
    run_stage("train", "named")
    assert of_kind(named, "callback")[0].values["hit"] == pytest.approx(hits.mean())  # not itself either
