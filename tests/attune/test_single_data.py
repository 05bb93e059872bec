"""Single pictures and texts as data: read, checked, stored, and measured among themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attune.data import store
from attune.data.pairs import Pairs, joined, load_pairs
from attune.data.read import count_examples, read_examples
from attune.data.shards import find_parts
from attune.data.validate import validate_examples
from attune.errors import DataError
from attune.evaluation.leakage import find_text_leaks
from attune.evaluation.measure import alike, measured, queries_of, split_fingerprint
from attune.kinds import SINGLE_IMAGE, SINGLE_TEXT
from attune.schemas import DatasetReport, TrainingExample
from client.search import search_documents
from tests.attune.singles import sentences, shapes
from tests.attune.texts import questions
from tests.conftest import coloured_examples, labelled_examples, picture

Push = Callable[..., DatasetReport]
RED, BLUE = picture("red"), picture("blue")


@pytest.mark.parametrize(
    ("examples", "kind", "counted"),
    [(shapes(20), SINGLE_IMAGE, "20 pictures"), (sentences(20), SINGLE_TEXT, "20 texts")],
    ids=["pictures", "texts"],
)
def test_pushed_items_are_counted_and_found_again(
    attune_home: Path, push: Push, examples: list[TrainingExample], kind: object, counted: str
) -> None:
    report = push("items", examples)

    assert (report.kind, report.items, report.belonging, report.counted) == (kind, 20, 0, counted)
    [listed] = store.list_datasets()
    assert (listed.kind, listed.fingerprint) == (kind, report.fingerprint)
    pairs = load_pairs(report.fingerprint)
    assert (pairs.kind, len(pairs), pairs.texts, pairs.caption_names) == (kind, 20, [], [])
    assert sorted(pairs.labels) == sorted(example.label for example in examples)
    assert pairs.names[0] == (pairs.queries[0] if kind is SINGLE_TEXT else f"{pairs.labels[0]} {pairs.images[0][:12]}")
    assert joined([pairs.take([7, 2]), pairs.take([0])]).kind is kind


def test_the_fingerprint_follows_labels_and_not_the_order(attune_home: Path, push: Push) -> None:
    examples = sentences(12)
    other = [example.model_copy(update={"label": "other"}) for example in examples]

    first, turned, relabelled = (push("a", examples), push("b", examples[::-1], 5), push("c", other))

    assert first.fingerprint == turned.fingerprint != relabelled.fingerprint


def test_a_text_may_be_alone_and_a_picture_that_has_a_label() -> None:
    good, problems = validate_examples(
        [
            TrainingExample(text=" alone "),
            TrainingExample(image=RED, label="red"),
            TrainingExample(image=BLUE),
            TrainingExample(image=BLUE, label=" "),
            TrainingExample(image=BLUE, label="blue", captions=[""]),
            TrainingExample(text="a query", negatives=["a wrong answer"]),
            TrainingExample(text="a query", scores=[0.5]),
        ]
    )

    assert [(one.text, one.label) for one in good] == [("alone", ""), ("", "red")]
    reasons = ["missing_caption", "missing_caption", "empty_caption", "two_kinds", "number_count", "two_kinds"]
    assert sorted({problem.reason for problem in problems}) == sorted(set(reasons))
    assert {problem.source for problem in problems} == {f"example {number}" for number in range(3, 8)}
    assert "its class as a label" in problems[0].advice


def test_items_with_captions_and_items_without_do_not_make_one_dataset(attune_home: Path, push: Push) -> None:
    with pytest.raises(DataError, match=r"16 of its 32 pictures have no captions"):
        push("mixed", [*coloured_examples()[:16], *shapes(16)], 16)
    with pytest.raises(DataError, match=r"12 of its 14 queries have no documents"):
        push("mixed", [*questions(2), *sentences(100)[-12:]])


def test_a_few_captions_that_are_missing_are_reported_and_the_rest_is_kept(attune_home: Path, push: Push) -> None:
    examples = labelled_examples()
    examples[3].captions = []

    report = push("shapes", examples)

    assert (report.images, report.rejected, report.reasons) == (39, 1, {"missing_caption": 1})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("text,label\nbook a table,food\n", [("book a table", "food", {})]),
        ("category,sentence\nfood,book a table, please\n", [("book a table, please", "food", {})]),
        ("query,class,from\nbook,food,app\n", [("book", "food", {"from": "app"})]),
        ("text\nbook a table, please\ncall\n", [("book a table, please", "", {}), ("call", "", {})]),
    ],
)
def test_a_table_of_texts_and_labels_or_of_texts_alone_is_read(
    tmp_path: Path, content: str, found: list[tuple[str, str, dict[str, str]]]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)

    read = list(read_examples(path))

    assert [(one.text, one.label, one.tags) for one in read] == found
    assert all(one.captions == [] and one.image == b"" for one in read)
    assert count_examples(path) == len(found)


def test_a_table_of_pictures_and_labels_is_read(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    (tmp_path / "metadata.csv").write_text("file_name,label\nred.png,warm\nblue.png,cold\n")

    assert [(one.image, one.label, one.captions) for one in read_examples(tmp_path)] == [
        (RED, "warm", []),
        (BLUE, "cold", []),
    ]


def test_a_folder_of_folders_is_pictures_by_class(tmp_path: Path) -> None:
    for name, label in (("b.png", "warm"), ("a.png", "warm"), ("c.png", "cold")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes(RED + name.encode())
    (tmp_path / "warm" / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    for hidden in ("__MACOSX", "warm/.thumbnails"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "d.png").write_bytes(BLUE)
    (tmp_path / "warm" / "more").mkdir()
    (tmp_path / "warm" / "more" / "e.png").write_bytes(BLUE)

    read = list(read_examples(tmp_path))

    found = {"cold/c.png": "cold", "warm/a.png": "warm", "warm/b.png": "warm", "warm/more/e.png": "warm"}
    assert {one.source: one.label for one in read} == found
    assert read[0].image == RED + b"c.png"
    assert count_examples(tmp_path) == 4


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/cat/1.png", "val/dog/2.png"), "'train' is no class"),
        (("photos/1.png",), "there is one alone"),
        (("cat/1.png", "dog/2.png", "metadata.jsonl"), "'metadata.jsonl' beside them is not read"),
    ],
)
def test_folders_that_are_no_classes_are_not_taken_for_them(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(RED)

    with pytest.raises(DataError, match=said):
        list(read_examples(tmp_path))


def test_a_folder_without_pictures_is_an_error_that_says_what_could_be_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="no folders with pictures, one a class"):
        list(read_examples(tmp_path))


def test_a_parquet_of_a_hugging_face_kind_with_labels_by_number_is_read(tmp_path: Path) -> None:
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["food", "travel"], "_type": "ClassLabel"}}
    table = pa.table({"text": ["book a table", "a train"], "label": [0, 1]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "train.parquet")

    assert [(one.text, one.label) for one in read_examples(tmp_path)] == [("book a table", "food"), ("a train", "travel")]


@pytest.mark.parametrize(
    "examples", [shapes(9), sentences(9), sentences(9, labelled=False)], ids=["shapes", "texts", "plain"]
)
def test_a_stored_dataset_is_read_as_it_was_pushed(
    attune_home: Path, push: Push, examples: list[TrainingExample], tmp_path: Path
) -> None:
    report = push("items", examples)
    [part] = find_parts(store.content_folder(report.fingerprint))

    read = list(read_examples(part))

    assert [(one.image, one.text, one.label, one.captions) for one in read] == [
        (one.image, one.text, one.label, []) for one in examples
    ]


def texts_of(*labels: str) -> Pairs:
    keys = [str(number) for number in range(len(labels))]
    return Pairs("", keys, [[] for _ in keys], keys, list(labels), kind=SINGLE_TEXT, queries=keys)


def test_items_look_for_others_of_their_label() -> None:
    pairs = texts_of("cat", "dog", "cat", "", "dog", "cow")
    # On a line from east to north: each is nearest to its neighbours.
    angles = np.array([0.0, 0.1, 0.25, 0.5, 0.9, 1.4])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    ranks = measured(images, images[:0], pairs).ranks

    assert queries_of(pairs)["text_to_text"].tolist() == [
        0,
        1,
        2,
        4,
    ]  # the cow is alone, and what has no label is like nothing
    # From 0: 1, then 2. From 1: 0, 2, 3, then 4. From 2: 1, then 0 and 3 as near. From 4: 3, then 5, 2, then 1.
    assert ranks["text_to_text"].tolist() == [2, 4, 2 + int(images[2] @ images[3] >= images[2] @ images[0]), 4]


def test_what_cannot_be_measured_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(DataError, match="The 2 texts to measure on have no labels.* give val_data and eval_data that have"):
        alike(texts_of("", ""))
    with pytest.raises(DataError, match="No two of the 3 texts to measure on have the same label"):
        alike(texts_of("cat", "dog", ""))
    with pytest.raises(DataError, match=r"make 63,992,000 pairs of one label"):
        alike(texts_of(*["cat"] * 8000))


def test_figures_of_other_labels_are_not_to_be_compared() -> None:
    assert split_fingerprint(texts_of("cat", "dog")) != split_fingerprint(texts_of("dog", "cat"))


def test_texts_that_were_learnt_are_found_among_those_held_out() -> None:
    train, test = (
        Pairs("", keys, [[]] * 2, keys, kind=SINGLE_TEXT, queries=keys) for keys in (["Book!", "b"], ["book", "c"])
    )

    leaks = find_text_leaks(train, test)

    assert (leaks.near, leaks.exact) == ([(0, 0)], [])
    assert "Held-out texts that are training texts, or say the same as one: 1" in leaks.describe()


def test_single_items_are_documents_of_a_search_themselves() -> None:
    documents = list(
        search_documents([TrainingExample(text="book"), TrainingExample(image=RED, label="red", source="1.png")])
    )

    assert [(one.text, one.image, one.key) for one in documents][1] == ("red", RED, "1.png")
    assert (documents[0].text, len(documents[0].key)) == ("book", 16)
