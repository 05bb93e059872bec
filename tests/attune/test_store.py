import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from attune.data import store, uploads
from attune.data.pairs import Pairs, load_pairs
from attune.data.read import read_examples
from attune.errors import DataError, DatasetNotFound
from attune.schemas import DatasetReport, TrainingExample
from tests.conftest import picture

Make = Callable[..., list[TrainingExample]]
Push = Callable[..., DatasetReport]


def keys(*reports: DatasetReport) -> list[str]:
    return [key for report in reports for key in report.batches]


def contents(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "datasets" / "content").iterdir())


def test_a_pushed_dataset_is_counted_and_found_again(attune_home: Path, make_examples: Make, push: Push) -> None:
    report = push("shapes", make_examples(20, captions=2))

    assert (report.images, report.captions, report.groups, report.rejected) == (20, 40, 20, 0)
    assert len(report.fingerprint) == 64
    assert store.describe("shapes").fingerprint == report.fingerprint
    assert not (attune_home / "datasets" / "uploads" / report.upload).exists()


def test_the_same_data_pushed_twice_is_stored_once(attune_home: Path, make_examples: Make, push: Push) -> None:
    first = push("first", make_examples(20), batch_size=20)
    shuffled = make_examples(20)[::-1]
    second = push("second", shuffled, batch_size=7)

    assert second.fingerprint == first.fingerprint
    assert contents(attune_home) == [first.fingerprint]
    assert len(store.read_index(first.fingerprint)) == 20


@pytest.mark.parametrize("change", ["caption", "group", "label", "tags", "picture", "fewer"])
def test_other_data_has_another_fingerprint(attune_home: Path, make_examples: Make, push: Push, change: str) -> None:
    first = push("first", make_examples(6))
    examples = make_examples(6)
    if change == "caption":
        examples[3].captions = [*examples[3].captions, "one more"]
    elif change == "group":
        examples[3].group = "a group"
    elif change == "label":
        examples[3].label = "a class"
    elif change == "tags":
        examples[3].tags = {"camera": "X100"}
    elif change == "picture":
        examples[3].image = picture("cyan")
    else:
        examples.pop()

    assert push("second", examples).fingerprint != first.fingerprint


def test_a_batch_that_arrives_twice_is_stored_once(attune_home: Path, make_examples: Make) -> None:
    first, second = make_examples(8)[:5], make_examples(8)[5:]

    reports = [uploads.add_batch("shapes", "upload-1", batch) for batch in (first, second, make_examples(8)[:5], first)]
    assert [report.images for report in reports] == [5, 3, 5, 5]
    committed = uploads.commit("shapes", "upload-1", keys(*reports))

    assert (committed.images, committed.captions) == (8, 16)
    assert len(store.read_index(committed.fingerprint)) == 8


def test_a_batch_whose_examples_name_no_source_is_stored_once_too(attune_home: Path, make_examples: Make) -> None:
    batch = make_examples(4)
    for example in batch:
        example.source = ""

    reports = [uploads.add_batch("shapes", "upload-1", batch) for _ in range(2)]

    assert len(store.read_index(uploads.commit("shapes", "upload-1", keys(*reports)).fingerprint)) == 4


def test_a_picture_that_comes_twice_counts_once_with_the_captions_of_both(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    red = picture("red")
    twice = [
        TrainingExample(image=red, captions=["a", "b"], source="1"),
        TrainingExample(image=red, captions=["b", "c"], source="2"),
    ]

    report = push("shapes", [*twice, *make_examples(5)])

    assert report.images == 6
    assert report.captions == 3 + 10
    pairs = load_pairs(report.fingerprint)
    assert (len(pairs), sum(map(len, pairs.captions))) == (6, 13)


def test_data_without_labels_and_tags_has_the_fingerprint_of_before_there_were_any(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    (example,) = make_examples(1)
    digest = hashlib.sha256(example.image).hexdigest()

    report = push("shapes", [example])

    row = json.dumps([digest, example.captions, digest])  # the picture, what is said of it, its group: itself
    assert report.fingerprint == hashlib.sha256(row.encode()).hexdigest()


def test_labels_and_tags_come_back_row_by_row(attune_home: Path, make_examples: Make, push: Push) -> None:
    examples = make_examples(12)
    for number, example in enumerate(examples[:8]):
        example.label, example.tags = f"class {number % 3}", {"größe": str(number), "by": "Ann"}

    pairs = load_pairs(push("shapes", examples, batch_size=5).fingerprint)

    known = {hashlib.sha256(example.image).hexdigest(): (example.label, example.tags) for example in examples}
    assert [(label, tags) for label, tags in zip(pairs.labels, pairs.tags, strict=True)] == [
        known[image] for image in pairs.images
    ]
    taken = pairs.take([7, 2])
    assert taken.labels == [pairs.labels[7], pairs.labels[2]]
    assert taken.tags == [pairs.tags[7], pairs.tags[2]]


def test_rows_of_one_picture_share_the_first_label_and_all_tags(attune_home: Path, push: Push) -> None:
    red = picture("red")
    rows = [  # in the order of their captions, whatever order they are pushed in
        TrainingExample(image=red, captions=["a"], tags={"by": "Ann"}, source="1"),
        TrainingExample(image=red, captions=["b"], label="warm", tags={"by": "Ben", "in": "Spain"}, source="2"),
        TrainingExample(image=red, captions=["c"], label="hot", source="3"),
    ]

    for name, order in (("one", rows), ("other", rows[::-1])):
        pairs = load_pairs(push(name, order).fingerprint)

        assert (pairs.captions, pairs.labels) == ([["a", "b", "c"]], ["warm"])
        assert pairs.tags == [{"by": "Ann", "in": "Spain"}]


def test_pairs_of_which_nothing_else_is_known_have_empty_labels_and_tags() -> None:
    pairs = Pairs("", ["1", "2"], [["a"], ["b"]], ["1", "2"])

    assert (pairs.labels, pairs.tags) == (["", ""], [{}, {}])
    assert pairs.take([1]).labels == [""]


def test_a_dataset_of_before_there_were_labels_is_read(attune_home: Path, make_examples: Make, push: Push) -> None:
    fingerprint = push("shapes", make_examples(6), batch_size=4).fingerprint
    expected = load_pairs(fingerprint)
    for part in store.content_folder(fingerprint).glob("part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.drop_columns(["label", "tags"]), part)

    assert load_pairs(fingerprint) == expected
    assert (expected.labels, expected.tags) == ([""] * 6, [{}] * 6)


@pytest.mark.parametrize("missing", [[], ["label", "tags"]], ids=["whole", "of-before"])
def test_shards_that_are_pushed_again_are_the_same_dataset(
    attune_home: Path, make_examples: Make, push: Push, missing: list[str]
) -> None:
    examples = make_examples(6)
    if not missing:
        examples[2].label, examples[3].tags = "a class", {"camera": "X100", "tags": "a, b"}
    report = push("shapes", examples)
    (part,) = store.content_folder(report.fingerprint).glob("part-*.parquet")
    copy = attune_home / "copy.parquet"
    pq.write_table(pq.read_table(part).drop_columns(missing), copy)

    assert push("again", list(read_examples(copy))).fingerprint == report.fingerprint


def test_committing_again_returns_the_same_report(attune_home: Path, make_examples: Make) -> None:
    batch = uploads.add_batch("shapes", "upload-1", [*make_examples(3), TrainingExample(captions=["no picture"])])
    first = uploads.commit("shapes", "upload-1", batch.batches)

    again = uploads.commit("shapes", "upload-1", batch.batches)

    assert again.fingerprint == first.fingerprint
    assert (again.images, again.rejected) == (3, 1)
    assert [problem.reason for problem in again.problems] == ["missing_image"]


def test_batches_that_are_not_there_cannot_be_committed(attune_home: Path, make_examples: Make, push: Push) -> None:
    push("shapes", make_examples(3))

    with pytest.raises(
        DataError, match=rf"2 of its 2 batches are not there \({'0' * 64}, {'1' * 64}\)\. Push the data again"
    ):
        uploads.commit("shapes", "upload-1", ["0" * 64, "1" * 64])
    with pytest.raises(DataError, match=r"0 of its 0 batches are not there \(none was named\)"):
        uploads.commit("shapes", "upload-1", [])


def test_a_name_moves_to_new_data_and_the_old_stays_for_runs_that_use_it(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    old = push("shapes", make_examples(4), upload="upload-1")
    new = push("shapes", make_examples(6), upload="upload-2")

    assert store.describe("shapes").fingerprint == new.fingerprint
    assert len(load_pairs(old.fingerprint)) == 4


def test_two_uploads_at_a_time_do_not_mix(attune_home: Path, make_examples: Make) -> None:
    examples = make_examples(9)
    one, two = uploads.add_batch("one", "upload-1", examples[:4]), uploads.add_batch("two", "upload-2", examples[4:])

    committed = uploads.commit("one", "upload-1", one.batches), uploads.commit("two", "upload-2", two.batches)
    assert [report.images for report in committed] == [4, 5]


def test_an_unknown_dataset_is_answered_with_the_known_ones(attune_home: Path, make_examples: Make, push: Push) -> None:
    with pytest.raises(DatasetNotFound, match=r"no dataset named 'shape'\. Push data under that name first\..*none yet"):
        store.describe("shape")
    push("shapes", make_examples(3))
    push("others", make_examples(3))

    with pytest.raises(DatasetNotFound, match="Datasets here: others, shapes"):
        store.describe("shape")


def test_a_dataset_of_which_nothing_can_be_used_is_refused_with_the_reasons(attune_home: Path) -> None:
    examples = [TrainingExample(image=b"broken", captions=["x"], source=f"row {number}") for number in range(8)]
    report = uploads.add_batch("bad", "upload-1", examples)
    assert (report.images, report.rejected, len(report.problems)) == (0, 8, 8)

    with pytest.raises(DataError, match=r"(?s)^Nothing of dataset 'bad' can be used\.\n- row 0: it cannot be decoded") as e:
        uploads.commit("bad", "upload-1", report.batches)

    assert str(e.value).count("\n- row ") == 5
    with pytest.raises(DatasetNotFound, match="none yet"):
        store.describe("bad")


@pytest.mark.parametrize("name", ["../escape", "a/b", ""])
def test_names_that_are_no_folder_names_are_refused(attune_home: Path, make_examples: Make, name: str) -> None:
    with pytest.raises(DataError, match="is not a valid name"):
        uploads.add_batch("shapes", name, make_examples(2))
    report = uploads.add_batch("shapes", "upload-1", make_examples(2))
    with pytest.raises(DataError, match="is not a valid name"):
        uploads.commit(name, "upload-1", report.batches)
    with pytest.raises(DataError, match="is not a valid name"):
        store.describe(name)


def test_shards_show_as_pictures_to_hugging_face_datasets(attune_home: Path, make_examples: Make, push: Push) -> None:
    report = push("shapes", make_examples(5))

    (part,) = store.content_folder(report.fingerprint).glob("part-*.parquet")
    schema = pq.read_schema(part)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names == ["image", "image_sha256", "captions", "group", "label", "tags", "source"]
    assert features["image"] == {"_type": "Image"}
    assert [field.name for field in schema.field("image").type] == ["bytes", "path"]
    assert pq.read_table(part)["image"][0].as_py()["bytes"] in {example.image for example in make_examples(5)}


def test_the_manifest_lists_the_shards_that_are_there(attune_home: Path, make_examples: Make, push: Push) -> None:
    report = push("shapes", make_examples(10), batch_size=4)
    folder = store.content_folder(report.fingerprint)

    manifest = json.loads((folder / "manifest.json").read_text())

    assert manifest["parts"] == sorted(path.name for path in folder.glob("*.parquet"))
    assert len(manifest["parts"]) == 3
    assert {key: manifest[key] for key in ("fingerprint", "images", "captions", "groups")} == {
        "fingerprint": report.fingerprint,
        "images": 10,
        "captions": 20,
        "groups": 10,
    }


def test_pictures_come_in_batches_no_larger_than_asked_for(attune_home: Path, make_examples: Make, push: Push) -> None:
    examples = make_examples(23)
    report = push("shapes", examples, batch_size=16)

    batches = list(store.iter_images(report.fingerprint, batch_size=5))

    assert max(map(len, batches)) == 5
    assert {image for batch in batches for _, image in batch} == {example.image for example in examples}
    index = store.read_index(report.fingerprint)["image_sha256"].to_pylist()
    assert [digest for batch in batches for digest, _ in batch] == index


def test_pairs_do_not_depend_on_how_the_data_was_pushed(
    attune_home: Path, make_examples: Make, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [make_examples(12), make_examples(12)[::-1]]
    found = []
    for number, examples in enumerate(orders):
        # Into two homes: in one the second push would find the first one's shards.
        monkeypatch.setenv("ATTUNE_HOME", str(attune_home / str(number)))
        found.append(load_pairs(push("shapes", examples, batch_size=5 + number).fingerprint))

    assert found[0] == found[1]
