"""Single items that come with several labels are told and set aside; those that come twice with one are one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from attune.data import store
from attune.data.pairs import load_pairs
from attune.data.read import count_examples, read_examples
from attune.errors import DataError
from attune.schemas import DatasetReport, TrainingExample
from tests.conftest import labelled_examples, picture

Push = Callable[..., DatasetReport]

ITEMS = {
    "picture": [{"image": picture(colour)} for colour in ("red", "blue", "green")],
    "text": [{"text": text} for text in ("book a table", "a train to Rome", "call me")],
    "embedding": [{"embedding": numbers} for numbers in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])],
}


def labelled(*items: tuple[dict[str, object], str]) -> list[TrainingExample]:
    return [TrainingExample(**item, label=label, source=f"row {row}") for row, (item, label) in enumerate(items, start=1)]


@pytest.mark.parametrize("batch_size", [1, 16], ids=["in-several-batches", "in-one"])
@pytest.mark.parametrize("item", ITEMS)
def test_an_item_with_several_labels_is_set_aside_and_each_of_its_examples_is_named(
    attune_home: Path, push: Push, item: str, batch_size: int
) -> None:
    one, two, three = ITEMS[item]
    clean = labelled((two, "cold"), (three, "warm"))

    report = push("items", labelled((one, "warm"), (two, "cold"), (one, "hot"), (three, "warm"), (one, "warm")), batch_size)

    assert (report.items, report.rejected, report.merged, report.groups) == (2, 3, 0, 2)
    assert report.reasons == {"several_labels": 3}
    assert [(one.source, one.field, one.value) for one in report.problems] == [
        ("row 1", "label", "warm"),
        ("row 3", "label", "hot"),
        ("row 5", "label", "warm"),
    ]
    assert {problem.advice for problem in report.problems} == {
        f"the same {item} comes with several labels: 'warm' (row 1), 'hot' (row 3). Which one is right cannot be known, so "
        "none of its examples is used. Keep those with the right label, and leave the others out"
    }
    pairs = load_pairs(report.fingerprint)
    assert (sorted(pairs.labels), pairs.kind) == (["cold", "warm"], report.kind)
    assert push("clean", clean).fingerprint == report.fingerprint
    assert load_pairs(report.fingerprint) == pairs
    assert store.describe("clean").reasons == {}


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_that_comes_again_with_its_label_or_without_one_is_one(attune_home: Path, push: Push, item: str) -> None:
    one, two, _ = ITEMS[item]
    examples = labelled((one, "warm"), (two, "cold"), (one, " warm"), (two, "cold"))
    examples += labelled((one, "")) if item == "text" else []  # what else has neither label nor captions is of no use

    report = push("items", examples, 2)

    assert (report.items, report.rejected, report.reasons) == (2, 0, {})
    assert report.merged == len(examples) - 2
    assert sorted(load_pairs(report.fingerprint).labels) == ["cold", "warm"]


def test_of_pictures_with_captions_the_first_label_counts_as_before(attune_home: Path, push: Push) -> None:
    examples = labelled_examples()[:8]
    again = examples[0].model_copy(update={"label": "another", "captions": ["the same, told again"]})

    report = push("shapes", [*examples, again])

    assert (report.images, report.merged, report.reasons) == (8, 1, {})
    assert len(load_pairs(report.fingerprint)) == 8


def test_data_of_contradictions_alone_is_refused_with_the_first_of_them(attune_home: Path, push: Push) -> None:
    one, two, _ = ITEMS["text"]
    many = [(two, f"label {number}") for number in range(7)]

    with pytest.raises(DataError, match=r"Nothing of dataset 'items' can be used\.\n- row 1: the same text comes with"):
        push("items", labelled((one, "a"), (one, "b"), *many))
    with pytest.raises(DataError, match=r"'label 4' \(row 5\) and more\. Which"):
        push("items", labelled(*many))


def test_the_room_for_pixels_counts_those_that_are_set_aside(attune_home: Path, push: Push) -> None:
    one, two, _ = ITEMS["picture"]

    report = push("items", labelled((one, "warm"), (one, "hot"), (one, "cold"), (two, "cold")))

    manifest = json.loads((store.content_folder(report.fingerprint) / "manifest.json").read_text())
    assert manifest["pictures"] == len(set(store.read_index(report.fingerprint)["image_sha256"].to_pylist())) == 2


def test_a_table_keeps_the_rows_of_a_single_item_apart_by_label(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label,from\nbook,travel,app\ncall,\nbook,,web\nbook,food,web\ncall,talk\nbook,travel,web\n")

    read = list(read_examples(path))

    assert [(one.text, one.label, one.tags.get("from"), one.source) for one in read] == [
        ("book", "travel", "app", "data.csv, line 2"),
        ("book", "food", "web", "data.csv, line 5"),
        ("call", "talk", None, "data.csv, line 3"),
    ]
    assert count_examples(path) == 3
