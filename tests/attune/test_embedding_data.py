"""Embeddings as data: written, read, checked, stored, and what is refused."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attune.data import store, uploads
from attune.data.embeddings import MAGIC, MOST_NUMBERS, canonical, read_embedding, to_bytes
from attune.data.keys import batch_key
from attune.data.pairs import joined, load_pairs
from attune.data.pixels import open_embeddings
from attune.data.read import count_examples, read_examples
from attune.data.shards import find_parts
from attune.data.uploads import problems_by_reason
from attune.data.validate import MOST_OF_EACH, validate_examples
from attune.errors import DataError
from attune.evaluation.leakage import find_match_leaks
from attune.kinds import EMBEDDING
from attune.schemas import DatasetReport, TrainingExample
from tests.attune.embeddings import DIMENSION, sounds, vectors
from tests.attune.matches import drawings
from tests.attune.texts import questions
from tests.conftest import picture

Push = Callable[..., DatasetReport]
ONE, OTHER, THIRD = [1.0, 2.0, -3.5], [0.5, 0.0, 1.0], [9.0, 1.0, 1.0]


def npy(array: np.ndarray, **options: object) -> bytes:
    """As NumPy itself writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def with_header(header: str, numbers: bytes = bytes(12)) -> bytes:
    said = header.encode() + b"\n"
    return MAGIC + b"\x01\x00" + len(said).to_bytes(2, "little") + said + numbers


@pytest.mark.parametrize("count", [1, 3, 100, 1000, MOST_NUMBERS])
def test_embeddings_are_written_as_numpy_writes_them(count: int) -> None:
    vector = np.linspace(-1, 2, count, dtype=np.float32)

    assert to_bytes(vector.tolist()) == npy(vector)
    np.testing.assert_array_equal(read_embedding(to_bytes(vector)), vector)


@pytest.mark.parametrize(
    "given",
    [
        npy(np.asarray(ONE, dtype=np.float64)),
        npy(np.asarray(ONE, dtype=np.float16)),
        npy(np.asarray([ONE], dtype=np.float32)),
        npy(np.asarray([ONE], dtype=np.float32, order="F")),
        npy(np.asarray(ONE, dtype=np.float32), version=(2, 0)),
        npy(np.asarray(ONE, dtype=np.float32), version=(3, 0)),
    ],
    ids=["double", "half", "table", "by-columns", "version-2", "version-3"],
)
def test_what_users_have_as_npy_is_one_embedding_however_it_is_written(given: bytes) -> None:
    example = TrainingExample(image=given, images=[npy(np.asarray(OTHER))])

    [checked], problems = validate_examples([example])

    assert problems == []
    assert (checked.image, checked.images) == (to_bytes(ONE), [to_bytes(OTHER)])


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (MAGIC, "no .npy file of version 1, 2 or 3"),
        (MAGIC + b"\x09\x00" + bytes(40), "no .npy file of version 1, 2 or 3"),
        (MAGIC + b"\x02\x00\xff\xff\xff\xff" + bytes(40), "header of 4,294,967,295 bytes is cut short"),
        (with_header(GOOD)[:40], "is cut short"),
        (with_header(GOOD + " " * 2000), "longer than 1,024"),
        (with_header(GOOD, bytes(8)), "has 8 bytes of numbers, and its header says 12"),
        (with_header(GOOD, bytes(16)), "has 16 bytes of numbers"),
        (with_header(GOOD.replace("3,", "999999999999,")), "its header says 3,999,999,999,996"),
        (with_header(GOOD.replace("3,", "9" * 40)), "header is not as NumPy writes it"),
        (with_header(GOOD.replace("3,", "-3,")), "header is not as NumPy writes it"),
        (with_header(GOOD.replace("3,", "__import__('os'),")), "header is not as NumPy writes it"),
        (with_header(GOOD.replace("'<f4'", "[('a', '<f4')]")), "header is not as NumPy writes it"),
        (with_header(GOOD.replace("<f4", "|O")), "it holds '|O'; numbers in float16"),
        (with_header(GOOD.replace("<f4", ">f4")), "it holds '>f4'"),
        (npy(np.asarray([1, 2, 3], bool)), r"it holds '\|b1'"),
        (npy(np.ones((2, 3), np.float32)), r"shape \(2, 3\); an embedding is one row"),
        (npy(np.float32(1.0)), r"shape \(\); an embedding is one row"),
        (npy(np.ones(0, np.float32)), "it has 0 numbers; from 1 to 65,536"),
        (npy(np.ones(MOST_NUMBERS + 1, np.float32)), "it has 65,537 numbers"),
        (npy(np.asarray([1, np.nan, np.inf], np.float32)), "2 of its 3 numbers are missing"),
        (npy(np.asarray([1, 1e300])), "1 of its 2 numbers are missing, no numbers, or too large for float32"),
        (npy(np.zeros(3, np.float32)), "its 3 numbers are all zero"),
        (npy(np.full(3, 1e-300)), "its 3 numbers are all zero"),
    ],
)
def test_bytes_that_are_no_embedding_are_refused_with_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_embedding(data)

    good, [problem, *_] = validate_examples([TrainingExample(image=data, images=[to_bytes(ONE)], source="here")])

    assert good == []
    assert (problem.source, problem.field, problem.reason) == ("here", "embedding", "unreadable_embedding")
    assert "Replace it or leave it out" in problem.advice


def test_python_objects_in_a_file_are_not_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"it holds '\|O'"):
        read_embedding(buffer.getvalue())


@pytest.mark.parametrize(
    ("given", "field", "reason", "said"),
    [
        ({"embedding": [1.0, float("nan")], "embeddings": [[1.0, 2.0]]}, "embedding", "unreadable_embedding", "1 of its 2"),
        ({"embedding": [0.0, 0.0], "embeddings": [[1.0, 2.0]]}, "embedding", "unreadable_embedding", "all zero"),
        ({"embedding": [1.0] * (MOST_NUMBERS + 1), "embeddings": [ONE]}, "embedding", "unreadable_embedding", "65,537"),
        ({"embeddings": [ONE]}, "embeddings", "same_picture", "the very embedding that it belongs to"),
        ({"embeddings": [[1.0, 2.0]]}, "embeddings", "other_length", "it has 2 numbers, and what it belongs to 3"),
        ({"embeddings": [[0.0, 0.0, 0.0]]}, "embeddings", "unreadable_match", "embedding 1 of those.*all zero"),
        ({"embeddings": [[]]}, "embeddings", "missing_match", "embedding 1 of those.*it is not there"),
        ({}, "embeddings", "missing_match", "no embedding belongs to it"),
        ({"captions": ["a bell"]}, "captions", "two_kinds", "no model embeds both"),
        ({"captions": ["a bell"], "embeddings": [OTHER]}, "images", "two_kinds", "the one or the other"),
        ({"embeddings": [OTHER], "scores": [0.5]}, "scores", "two_kinds", "those are for captions"),
        ({"image": picture("red"), "embeddings": [OTHER]}, "embedding", "two_items", "an embedding and a picture"),
        ({"text": "a bell", "captions": ["ding"]}, "embedding", "two_items", "an embedding and a picture or a text"),
        ({"images": [picture("red")]}, "images", "two_kinds", "one is a picture and one an embedding"),
        ({"embeddings": [OTHER], "images": [to_bytes(THIRD)]}, "embeddings", "two_kinds", "embeddings and pictures"),
        ({"embedding": [], "image": picture("red"), "embeddings": [OTHER]}, "embeddings", "two_kinds", "one is a picture"),
        ({"embeddings": [OTHER] * (MOST_OF_EACH + 1)}, "embeddings", "too_many", "Make several examples"),
    ],
)
def test_what_cannot_be_used_is_reported(given: dict[str, object], field: str, reason: str, said: str) -> None:
    good, problems = validate_examples([TrainingExample(**{"embedding": ONE, "source": "here", **given})])

    assert good == []
    first = problems[0]
    assert (first.source, first.field, first.reason) == ("here", field, reason)
    assert all(part in first.advice for part in said.split(".*"))


def test_an_example_is_kept_with_those_matches_that_are_good() -> None:
    [good], [problem] = validate_examples([TrainingExample(embedding=ONE, embeddings=[OTHER, [0.0] * 3, OTHER, THIRD])])

    assert good.images == [to_bytes(OTHER), to_bytes(THIRD)]
    assert "embedding 2 of those" in problem.advice


def test_what_was_given_is_left_as_it_is() -> None:
    given = TrainingExample(embedding=ONE, embeddings=[OTHER])

    validate_examples([given])

    assert (given.embedding, given.embeddings, given.image, given.images) == (ONE, [OTHER], b"", [])


def test_pushed_embeddings_are_counted_as_pictures_with_matches_and_found_again(attune_home: Path, push: Push) -> None:
    report = push("sounds", sounds(20, matches=2))

    assert (report.images, report.captions, report.matches, report.dimension) == (20, 0, 40, DIMENSION)
    assert (report.kind, report.items, report.belonging) == (EMBEDDING, 20, 40)
    [listed] = store.list_datasets()
    assert (listed.kind, listed.dimension) == (EMBEDDING, DIMENSION)
    pairs = load_pairs(report.fingerprint)
    assert (pairs.kind, pairs.dimension) == (EMBEDDING, DIMENSION)
    key = {hashlib.sha256(to_bytes(row)).hexdigest(): row for rows in vectors(20, 2) for row in rows}
    cache = open_embeddings(report.fingerprint)
    assert (cache.pixels.dtype, cache.pixels.shape) == (np.float32, (60, DIMENSION))
    assert isinstance(cache.pixels, np.memmap)
    for keys in (pairs.images, pairs.texts):
        np.testing.assert_array_equal(cache.pixels[cache.rows(keys)], [key[one] for one in keys])
    assert pairs.names[0] == f"{pairs.labels[0]} {pairs.images[0][:12]}"
    taken = joined([pairs.take([7, 2]), pairs.take([0])])
    assert (taken.kind, taken.dimension, len(taken)) == (EMBEDDING, DIMENSION, 3)


def test_the_same_numbers_are_the_same_dataset_however_they_came(attune_home: Path, push: Push, tmp_path: Path) -> None:
    numbers = push("numbers", sounds(6))
    as_bytes = [
        example.model_copy(
            update={
                "embedding": [],
                "embeddings": [],
                "image": npy(np.asarray(example.embedding)),
                "images": [npy(np.asarray([example.embeddings[0]]))],
            }
        )
        for example in sounds(6)
    ]

    assert push("bytes", as_bytes).fingerprint == numbers.fingerprint
    assert push("read", list(read_examples(sounds(6)))).fingerprint == numbers.fingerprint
    stored = list(read_examples(store.content_folder(numbers.fingerprint)))
    assert push("stored", stored).fingerprint == numbers.fingerprint


def test_embeddings_of_several_lengths_and_with_pictures_or_texts_are_refused(attune_home: Path, push: Push) -> None:
    short = TrainingExample(embedding=ONE, embeddings=[OTHER])
    with pytest.raises(DataError, match=r"several lengths \(5 of 24 numbers, 1 of 3 numbers\).*under a name each"):
        push("mixed", [*sounds(5), short], batch_size=4)
    with pytest.raises(DataError, match=r"with an embedding \(5\) and with a picture \(3\).*under two names"):
        push("mixed", [*sounds(5), *drawings(3)])
    with pytest.raises(DataError, match=r"with an embedding \(5\) and with a text \(2\)"):
        push("mixed", [*sounds(5), *questions(2)])

    assert store.list_datasets() == []


def test_a_part_is_written_so_that_others_take_embeddings_for_no_pictures(attune_home: Path, push: Push) -> None:
    [part] = find_parts(store.content_folder(push("sounds", sounds(4)).fingerprint))

    features = json.loads(pq.read_schema(part).metadata[b"huggingface"])["info"]["features"]

    assert features["image"] == {
        "bytes": {"dtype": "binary", "_type": "Value"},
        "path": {"dtype": "string", "_type": "Value"},
    }


def test_the_key_of_a_batch_tells_embeddings_apart_and_others_keep_theirs() -> None:
    def key(**fields: object) -> str:
        return batch_key([TrainingExample(source="1", **fields)])

    fields = [{"embedding": ONE}, {"embedding": OTHER}, {"embeddings": [ONE]}, {"embeddings": [ONE, OTHER]}, {}]
    assert len({key(**one) for one in fields}) == 5
    said = json.dumps([[], "", "", {}, "1", ""], sort_keys=True)  # as before there were embeddings
    assert key() == hashlib.sha256(hashlib.sha256(hashlib.sha256(b"").digest() + said.encode()).digest()).hexdigest()


def test_a_batch_that_is_there_already_counts_its_embeddings(attune_home: Path) -> None:
    first = uploads.add_batch("sounds", "upload", sounds(4))

    again = uploads.uploaded("sounds", "upload", first.batches)

    assert (first.dimension, again.dimension, again.kind) == (DIMENSION, DIMENSION, EMBEDDING)


@pytest.mark.parametrize(
    ("item", "match"),
    [("embedding", "embeddings"), ("embedding1", "embedding2"), ("Embedding", "match"), ("embedding_1", "embedding_2")],
)
@pytest.mark.parametrize("nested", [True, False])
def test_parquet_of_embeddings_is_read(tmp_path: Path, item: str, match: str, nested: bool) -> None:
    rows = vectors(3)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows[:, 0].ravel()), DIMENSION)
    others = [[row[1].tolist()] if nested else row[1].tolist() for row in rows]
    columns = {item: fixed, match: others, "label": ["a", "b", "c"], "camera": ["1", "2", "3"], "text": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), tmp_path / "sounds.parquet")

    examples = list(read_examples(tmp_path / "sounds.parquet"))

    assert [one.image for one in examples] == [to_bytes(row[0]) for row in rows]
    assert [one.images for one in examples] == [[to_bytes(row[1])] for row in rows]
    assert [(one.label, one.tags["camera"]) for one in examples] == [("a", "1"), ("b", "2"), ("c", "3")]
    good, problems = validate_examples(examples)
    assert (len(good), problems) == (3, [])


def test_what_a_table_has_no_numbers_for_is_reported_row_by_row(tmp_path: Path) -> None:
    columns = {
        "embedding": pa.array([[1.0, 2.0], None, [1.0, None], [1.0, 2.0]], pa.list_(pa.float64())),
        "match": pa.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], []], pa.list_(pa.float64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "sounds.parquet")

    good, problems = validate_examples(read_examples(tmp_path / "sounds.parquet"))

    assert len(good) == 1
    assert [problem.source[-5:] for problem in problems] == ["row 2", "row 3", "row 4"]
    assert problems_by_reason(problems) == {"missing_image": 1, "unreadable_embedding": 1, "missing_match": 1}


def test_a_table_of_pictures_keeps_its_pictures_beside_embeddings(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": picture("red"), "path": "r"}], "caption": ["red"], "embedding": [[1.0]]}
    pq.write_table(pa.table({**columns, "embeddings": [[[2.0]]]}), tmp_path / "both.parquet")

    [example] = read_examples(tmp_path / "both.parquet")

    assert (example.image, example.captions, example.images) == (picture("red"), ["red"], [])


def test_npy_files_named_by_a_csv_are_read(tmp_path: Path) -> None:
    for name, numbers in (("one", ONE), ("other", OTHER), ("third", THIRD)):
        np.save(tmp_path / f"{name}.npy", np.asarray(numbers))
    path = tmp_path / "sounds.csv"
    path.write_text("embedding,match,label\none.npy,other.npy,bell\none.npy,third.npy,\nthird.npy,none.npy,drum\n")

    [good], [problem] = validate_examples(read_examples(path))

    assert (good.image, good.images, good.label) == (to_bytes(ONE), [to_bytes(OTHER), to_bytes(THIRD)], "bell")
    assert problem.reason == "missing_match"
    assert "none.npy: no such file" in problem.source


def test_a_table_of_numpys_is_read_item_by_item(tmp_path: Path) -> None:
    np.save(tmp_path / "sounds.npy", vectors(5, matches=2).astype(np.float64))

    examples = list(read_examples(tmp_path / "sounds.npy"))

    assert count_examples(tmp_path / "sounds.npy") == 5
    assert [one.image for one in examples] == [to_bytes(rows[0]) for rows in vectors(5, 2)]
    assert [one.images for one in examples] == [[to_bytes(row) for row in rows[1:]] for rows in vectors(5, 2)]
    assert examples[1].source == "sounds.npy, row 2"


def test_whole_numbers_are_as_good_as_others(tmp_path: Path) -> None:
    rows = np.arange(1, 25).reshape(2, 3, 4)
    np.save(tmp_path / "whole.npy", rows)
    np.save(tmp_path / "others.npy", rows.astype(np.float32))

    whole, others = (list(read_examples(tmp_path / name)) for name in ("whole.npy", "others.npy"))

    assert [(one.image, one.images) for one in whole] == [(one.image, one.images) for one in others]
    assert canonical(npy(rows[0, 0].astype(np.uint8))) == to_bytes(rows[0, 0])


def test_nested_lists_of_numbers_are_named_as_what_they_are(tmp_path: Path) -> None:
    nested = [[[[1.0, 2.0]]]]
    pq.write_table(pa.table({"embedding": [[1.0, 2.0]], "match": nested}), tmp_path / "match.parquet")
    pq.write_table(pa.table({"embedding": [[[1.0, 2.0]]], "label": ["a"]}), tmp_path / "item.parquet")

    _, [of_match] = validate_examples(read_examples(tmp_path / "match.parquet"))
    _, [of_item] = validate_examples(read_examples(tmp_path / "item.parquet"))

    assert of_match.advice.startswith(
        "embedding 1 of those that belong to it: it is not there, or is not one row of numbers"
    )
    assert of_item.source == "item.parquet, row 1 ('embedding' holds no row of numbers: [[1.0, 2.0]])"


@pytest.mark.parametrize("array", [np.ones((3, 4)), np.ones((3, 0, 4)), np.ones((3, 2, 4), dtype=bool), np.asarray(["a"])])
def test_other_tables_of_numpys_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "sounds.npy", array)
    with pytest.raises(DataError, match=r"sounds.npy' holds .*\(items, 1 \+ matches, dim\)"):
        list(read_examples(tmp_path / "sounds.npy"))
    (tmp_path / "sounds.npy").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"cannot be read as NumPy's"):
        list(read_examples(tmp_path / "sounds.npy"))


def test_held_out_embeddings_that_are_nearly_training_embeddings_leak(attune_home: Path, push: Push) -> None:
    known = vectors(30)
    rounded = known[:2].astype(np.float16).astype(np.float32)  # the same, made in other arithmetic
    fresh = vectors(10, seed=1)
    test = np.concatenate([rounded, known[2:3], fresh])
    train, held_out = (
        load_pairs(push(name, [TrainingExample(embedding=a.tolist(), embeddings=[b.tolist()]) for a, b in rows]).fingerprint)
        for name, rows in (("train", known), ("test", test))
    )
    caches = [open_embeddings(pairs.fingerprint) for pairs in (train, held_out)]
    rows = [
        cache.pixels[cache.rows([*pairs.images, *pairs.texts])]
        for cache, pairs in zip(caches, (train, held_out), strict=True)
    ]

    leaks = find_match_leaks(train, rows[0], held_out, rows[1])

    assert (len(leaks.exact), len(leaks.near), leaks.captions) == (1, 2, 3)
    for row, other in leaks.near:
        np.testing.assert_allclose(rows[1][row], rows[0][other], atol=0.01)
    assert "embeddings that are training embeddings, or are nearly one: 3 (1 the same numbers, 2 nearly" in leaks.describe()
