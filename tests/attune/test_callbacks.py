import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attune.callback_settings import EvaluationCallback
from attune.config import check_settings
from attune.data.pairs import Pairs, load_pairs
from attune.data.pixels import open_pixels
from attune.errors import DataError, DatasetNotFound, TrainingStopped
from attune.models.clip import load_clip
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.training.watches import belonging
from attune.validation import validate
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.trained import of_kind, start

FIGURES = ("precision", "recall", "f1", "hit", "average_precision", "reciprocal_rank", "dcg")


@pytest.fixture
def others(
    shapes: DatasetReport, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    """12 pictures with two captions and the label of their colour each, pushed as `others` beside `shapes`."""
    examples = make_examples(12)
    for example in examples:
        example.label = example.captions[0].split()[1]
    return push("others", examples)


def pairs(images: str, labels: str = "") -> Pairs:
    """Pictures of one letter each, with two captions."""
    return Pairs("", list(images), [[f"a {image}", f"one {image}"] for image in images], list(images), list(labels))


@pytest.mark.parametrize(
    ("given", "queries", "index", "asked", "there"),
    [
        ({}, pairs("ab"), pairs("ba"), "aabb", "ba"),
        ({"model": "clip-vision"}, pairs("ab"), pairs("ba"), "ab", "bbaa"),
        ({"index_model": "clip-vision", "model": "clip-vision"}, pairs("ab"), pairs("ca"), "ab", "ca"),
        ({}, pairs("ab", "xy"), pairs("cd", "yx"), "xxyy", "yx"),
        ({"model": "clip-vision", "index_model": "clip-vision"}, pairs("ab", "xy"), pairs("cd", "yx"), "xy", "yx"),
    ],
)
def test_an_item_belongs_to_its_label_if_all_have_one_and_else_to_its_picture(
    given: dict[str, str], queries: Pairs, index: Pairs, asked: str, there: str
) -> None:
    callback = EvaluationCallback(query_data="q", index_data="i", **given)

    assert belonging(callback, queries, index) == (list(asked), list(there))


def test_labels_count_only_if_every_picture_has_one() -> None:
    callback = EvaluationCallback(query_data="q", index_data="i")

    assert belonging(callback, pairs("ab", "xy"), replace(pairs("ba"), labels=["x", ""])) == (list("aabb"), list("ba"))


@pytest.mark.parametrize(
    ("given", "queries", "index", "said"),
    [
        ({"index_data": "i"}, pairs("ab"), pairs("cd"), r"no query of 'q' has a right answer in 'i' \(the same picture\)"),
        ({"index_data": "i"}, pairs("ab", "xx"), pairs("ab", "yy"), r"right answer in 'i' \(the same label\)"),
        (
            {"model": "clip-vision", "index_model": "clip-vision", "exclude_self": True},
            pairs("ab"),
            pairs("ab"),
            r"in 'q' \(the same picture, besides itself\)",
        ),
    ],
)
def test_data_without_right_answers_is_refused(given: dict[str, object], queries: Pairs, index: Pairs, said: str) -> None:
    with pytest.raises(DataError, match=said):
        belonging(EvaluationCallback(query_data="q", **given), queries, index)


@pytest.mark.parametrize(
    ("given", "queries", "index", "said"),
    [
        ({"index_data": "i"}, pairs("ab"), pairs("a"), r"'i' has one picture to search: .* Give data with more pictures"),
        (
            {"model": "clip-vision"},
            pairs("a"),
            replace(pairs("a"), captions=[["an a"]]),
            r"'q' has one caption to search: .* Give data with more captions",
        ),
        (
            {"model": "clip-vision", "index_model": "clip-vision", "exclude_self": True},
            pairs("ab", "xx"),
            pairs("ab", "xx"),
            "'q' has one picture to search, besides the query: it comes first whatever the model",
        ),
    ],
    ids="picture caption besides-itself".split(),
)
def test_an_index_with_nothing_to_choose_from_is_refused(
    given: dict[str, object], queries: Pairs, index: Pairs, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        belonging(EvaluationCallback(query_data="q", **given), queries, index)


def test_a_run_is_checked_with_its_callbacks_data(others: DatasetReport, shapes: DatasetReport, tiny_model: Path) -> None:
    settings = {"model": str(tiny_model), "train_data": "shapes"}

    fields = validate(FinetuningRun(settings={**settings, "callbacks": [{"query_data": "others"}]}))

    assert fields["callback_fingerprints"] == {"others": others.fingerprint}
    assert fields["settings"]["callbacks"][0]["limit"] == 20
    assert check_settings(fields["settings"]).callbacks[0].query_data == "others"
    with pytest.raises(DatasetNotFound, match="no dataset named 'absent'"):
        validate(FinetuningRun(settings={**settings, "callbacks": [{"query_data": "others", "index_data": "absent"}]}))


def test_the_figures_of_each_epoch_are_in_the_history_and_those_of_the_start_are_right(
    others: DatasetReport, tiny_model: Path
) -> None:
    callbacks = [
        {"query_data": "others", "limit": 3, "caption": "colours", "batch_size": 5, "model": "clip-vision"},
        {"query_data": "others", "index_data": "shapes", "limit": 4},
        {"query_data": "others", "model": "clip-text", "index_model": "clip-text", "exclude_self": True, "limit": 2},
    ]
    folder = start("watched", tiny_model, epochs=2, callbacks=callbacks)
    run_stage("train", "watched")

    events = of_kind(folder, "callback")

    assert [(event.values["number"], event.values["epoch"]) for event in events] == [
        (number, epoch) for epoch in (0, 1, 2) for number in (1, 2, 3)
    ]
    assert events[0].message.startswith("colours, epoch 0, first 3: precision 0.")
    assert events[1].message.startswith("others in shapes, epoch 0, first 4: precision 0.")
    assert all(set(event.values) == {"number", "epoch", "limit", *FIGURES} for event in events)

    clip = load_clip(str(tiny_model))
    sides = {}
    for name, digest in (("others", others.fingerprint), ("shapes", folder.load().train_fingerprint)):
        data = load_pairs(digest)
        cache = open_pixels(digest, clip.preprocess, clip.resize)
        sides[name] = data, clip.encode_images(cache.pixels[cache.rows(data.images)]), clip.encode_texts(data.texts)
    data, images, texts = sides["others"]
    twice = np.repeat(np.arange(len(data)), 2)
    labels = np.array(data.labels)
    expected = [
        by_hand(images @ texts.T, labels[:, None] == labels[twice], 3),
        by_hand(
            texts @ sides["shapes"][1].T, np.array(data.images)[twice][:, None] == np.array(sides["shapes"][0].images), 4
        ),
        by_hand(texts @ texts.T - 9 * np.eye(24), (labels[twice][:, None] == labels[twice]) & ~np.eye(24, dtype=bool), 2),
    ]
    for event, values in zip(events, expected, strict=False):
        assert {name: event.values[name] for name in values} == pytest.approx(values, abs=1e-9)


def by_hand(scores: np.ndarray, right: np.ndarray, k: int) -> dict[str, float]:
    """Means over queries that have a right answer, from the whole matrix."""
    found: dict[str, list[float]] = {"precision": [], "recall": [], "hit": []}
    for line, is_right in zip(scores, right, strict=True):
        if not is_right.any():
            continue
        first = is_right[np.argsort(-line, kind="stable")][:k]
        found["precision"].append(first.sum() / k)
        found["recall"].append(first.sum() / is_right.sum())
        found["hit"].append(float(first.any()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_no_more_first_answers_are_told_of_than_there_are(others: DatasetReport, tiny_model: Path) -> None:
    texts = {"model": "clip-text", "index_model": "clip-text", "exclude_self": True}
    callbacks = [{"query_data": "others", "limit": 100_000, **more} for more in ({}, texts)]
    folder = start("watched", tiny_model, epochs=1, callbacks=callbacks)
    run_stage("train", "watched")

    first, second, *_ = of_kind(folder, "callback")

    assert first.message.startswith("others in others, epoch 0, first 12: ")  # pictures
    assert second.message.startswith("others in others, epoch 0, first 23: ")  # captions, less the query
    assert (first.values["limit"], second.values["limit"]) == (12, 23)
    assert second.values["recall"] == 1


def test_a_run_trains_to_the_same_weights_with_callbacks_and_without_broken_off_and_not(
    others: DatasetReport, tiny_model: Path
) -> None:
    callback = {"query_data": "others", "index_data": "shapes", "gather_examples": True}
    plain, watched = (
        start(name, tiny_model, epochs=2, learning_rate=1e-4, augmentation="light", ema_decay=0.9, **more)
        for name, more in (("plain", {}), ("watched", {"callbacks": [callback]}))
    )
    fit(prepare(plain, check_settings(plain.load().settings), stop=lambda: False))

    stops = 0
    for _ in range(10):
        try:
            fit(prepare(watched, check_settings(watched.load().settings), stop=lambda: True))
            break
        except TrainingStopped:
            stops += 1

    assert stops == 6
    assert_equal(checkpoint(watched), checkpoint(plain))
    assert_equal(weights(watched, "best"), weights(plain, "best"))
    assert [event.values["epoch"] for event in of_kind(watched, "callback")] == [0, 1, 2]


def test_the_first_answers_to_some_queries_are_kept_if_asked_for(others: DatasetReport, tiny_model: Path) -> None:
    callbacks = [
        {"query_data": "others", "gather_examples": True},
        {"query_data": "others"},
        {
            "query_data": "others",
            "model": "clip-text",
            "index_model": "clip-text",
            "exclude_self": True,
            "gather_examples": True,
        },
    ]
    folder = start("watched", tiny_model, epochs=1, callbacks=callbacks)
    run_stage("train", "watched")

    assert sorted(path.name for path in folder.report.iterdir()) == ["callback-1.json", "callback-3.json"]
    first, third = (json.loads((folder.report / f"callback-{number}.json").read_text()) for number in (1, 3))
    texts = load_pairs(others.fingerprint).texts
    assert (first["name"], first["epoch"], len(first["examples"])) == ("others in others", 1, 12)
    for found in (first, third):
        for example in found["examples"]:
            assert example["query"] in texts
            scores = [hit["score"] for hit in example["hits"]]
            assert len(scores) == 5
            assert scores == sorted(scores, reverse=True)
    assert all(hit["answer"] != example["query"] for example in third["examples"] for hit in example["hits"])


def test_more_right_answers_than_can_be_ranked_are_refused() -> None:
    pictures = Pairs("f", [str(row) for row in range(3000)], [["one"]] * 3000, ["g"] * 3000, ["dog"] * 3000)
    callback = EvaluationCallback(query_data="queries")

    with pytest.raises(DataError, match=r"has 9,000,000 pairs .* at most 5,000,000"):
        belonging(callback, pictures, pictures)
