"""Pairs of texts as data: read, checked, stored, and what counts as the same."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attune.data import store, uploads
from attune.data.captions import Captions
from attune.data.duplicates import Duplicates
from attune.data.keys import batch_key
from attune.data.pairs import Pairs, joined, load_pairs
from attune.data.read import count_examples, read_examples
from attune.data.validate import validate_examples
from attune.errors import DataError
from attune.evaluation.leakage import Leaks, count_negatives, find_text_leaks
from attune.kinds import IMAGE, SINGLE_TEXT, TEXT, Kind
from attune.schemas import DatasetReport, TrainingExample
from tests.attune.test_captions import words_to_tokens
from tests.attune.texts import questions
from tests.conftest import picture

Push = Callable[..., DatasetReport]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pairs_of(**documents: list[str]) -> Pairs:
    """Pairs of texts: each name, with spaces for underscores, is a query."""
    queries = [name.replace("_", " ") for name in documents]
    keys = [sha(query) for query in queries]
    return Pairs("", keys, list(documents.values()), keys, kind=TEXT, queries=queries)


def test_pushed_texts_are_counted_as_texts_and_found_again(attune_home: Path, push: Push) -> None:
    report = push("questions", questions(20))

    assert (report.images, report.texts, report.items, report.captions, report.groups) == (0, 20, 20, 40, 20)
    assert report.kind is TEXT
    [listed] = store.list_datasets()
    assert (listed.images, listed.texts, listed.fingerprint) == (0, 20, report.fingerprint)
    pairs = load_pairs(report.fingerprint)
    assert pairs.kind is TEXT
    assert dict(zip(pairs.queries, pairs.captions, strict=True)) == {one.text: one.captions for one in questions(20)}
    assert pairs.images == [sha(query) for query in pairs.queries]
    taken = pairs.take([7, 2])
    assert (taken.kind, taken.queries, taken.names) == (TEXT, [pairs.queries[7], pairs.queries[2]], taken.queries)
    assert joined([taken, pairs.take([0])]).queries == [*taken.queries, pairs.queries[0]]
    assert pairs.take([]).kind is TEXT


def test_the_fingerprint_of_texts_follows_from_their_content_alone(attune_home: Path, push: Push) -> None:
    first = push("first", questions(12), batch_size=12)

    assert push("second", questions(12)[::-1], batch_size=5).fingerprint == first.fingerprint
    assert push("third", questions(11)).fingerprint != first.fingerprint
    example = TrainingExample(text="q", captions=["a", "b"])
    row = json.dumps([sha("q"), ["a", "b"], sha("q")])
    assert push("known", [example]).fingerprint == hashlib.sha256(row.encode()).hexdigest()


def test_equal_texts_become_one_with_the_captions_of_both(attune_home: Path, push: Push) -> None:
    rows = [
        TrainingExample(text="how old?", captions=["ten", "ten years"], source="1"),
        TrainingExample(text=" how old?\x07 ", captions=["ten years", "a decade"], source="2"),
        TrainingExample(text="How old?", captions=["ten"], source="3"),  # another text, for a tokenizer that sees case
    ]

    report = push("ages", rows)

    assert (report.texts, report.merged, report.captions, report.rejected) == (2, 1, 4, 0)
    assert report.reasons == {"control_characters": 1}
    known = dict(zip((pairs := load_pairs(report.fingerprint)).queries, pairs.captions, strict=True))
    assert {query: sorted(texts) for query, texts in known.items()} == {
        "how old?": ["a decade", "ten", "ten years"],
        "How old?": ["ten"],
    }


def test_pictures_and_texts_in_one_dataset_are_refused_with_how_many_of_each(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Push
) -> None:
    with pytest.raises(DataError, match=r"with a picture \(3\) and with a text \(5\).*Push them under two names"):
        push("mixed", [*questions(5), *make_examples(3)])

    assert store.list_datasets() == []


@pytest.mark.parametrize(
    ("given", "reason", "said"),
    [
        ({"text": "q", "image": picture("red")}, "two_items", "a picture and a text"),
        ({"text": "q", "uri": "/somewhere/else.png"}, "two_items", "a picture and a text"),
        ({"text": " \x00 "}, "empty_text", "the text is empty"),
        ({"text": "nan"}, "empty_text", "the text is empty"),
        ({"text": "x" * 10_001}, "long_text", "more than 10,000 characters"),
        ({}, "missing_image", "no picture, and no text or embedding in its place"),
    ],
)
def test_an_example_is_of_a_picture_or_a_text(given: dict[str, object], reason: str, said: str) -> None:
    good, problems = validate_examples([TrainingExample(**given, captions=["a"], source="here")])

    assert good == []
    [problem] = [problem for problem in problems if problem.reason == reason]
    assert problem.source == "here"
    assert said in problem.advice


def test_the_key_of_a_batch_tells_texts_apart_and_pictures_keep_theirs() -> None:
    def key(**fields: object) -> str:
        return batch_key([TrainingExample(captions=["a"], source="1", **fields)])

    examples = [{"text": "q"}, {"text": "r"}, {"uri": "q"}, {"uri": "q", "text": "q"}, {"image": b"i"}, {}]
    assert len({key(**fields) for fields in [*examples, {"image": b"i", "text": "q"}]}) == 7
    said = json.dumps([["a"], "", "", {}, "1"], sort_keys=True)  # as before there were texts
    whole = hashlib.sha256(hashlib.sha256(b"i").digest() + said.encode()).digest()
    assert key(image=b"i") == hashlib.sha256(whole).hexdigest()


def test_a_batch_of_texts_that_is_there_is_not_stored_again(attune_home: Path) -> None:
    first = uploads.add_batch("questions", "upload", questions(8))
    again = uploads.uploaded("questions", "upload", first.batches)

    assert (first.texts, again.texts, again.batches) == (8, 8, first.batches)
    assert uploads.commit("questions", "upload", first.batches).texts == 8
    assert uploads.uploaded("other", "other", first.batches).batches == first.batches


CSV_FORMS = {
    "header": "query,document\nhow old?,ten\nhow far?,a mile\nhow old?,ten years\n",
    "other-names": "positive,n,anchor\nten,1,how old?\na mile,2,how far?\nten years,3,how old?\n",
    "text-column": "question,text\nhow old?,ten\nhow far?,a mile\nhow old?,ten years\n",
    "no-header": "how old?,ten\nhow far?,a mile\nhow old?,ten years\n",
    "no-header-tabs": "how old?\tten\nhow far?\ta mile\nhow old?\tten years\n",
}


@pytest.mark.parametrize("text", CSV_FORMS.values(), ids=CSV_FORMS)
def test_a_csv_of_queries_and_documents_is_read_query_by_query(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)

    examples = list(read_examples(path))

    assert [(one.text, one.captions, one.image, one.uri) for one in examples] == [
        ("how old?", ["ten", "ten years"], b"", ""),
        ("how far?", ["a mile"], b"", ""),
    ]
    assert count_examples(path) == 2


def test_group_label_and_tags_of_a_csv_of_texts_are_kept_and_a_negative_is_no_tag(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,positive,negative,label,group,lang\nhow old?,ten,red,age,g1,en\n,eleven,,age,,en\n")

    first, second = read_examples(path)

    assert (first.label, first.group, first.tags) == ("age", "g1", {"lang": "en"})
    assert second.source == "pairs.csv, line 3 (the query is empty)"


@pytest.mark.parametrize(
    "text",
    [
        "photo.png of a dog,a red dog\nwhat is it?,dog.jpg\n",
        "https://x.org/1,a red dog\nhttps://x.org/2,a blue dog\n",
        "one,two\n",
        "prompt,reply\nhow old?,ten\n",
    ],
    ids=["a-picture-among-them", "addresses", "single-words", "unknown-header"],
)
def test_a_csv_without_a_header_that_may_be_of_pictures_is_not_taken_for_texts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)

    with pytest.raises(DataError, match="neither a header `image,caption` nor a row with an image path"):
        list(read_examples(path))


def test_parquet_of_queries_and_lists_of_documents_is_read(tmp_path: Path) -> None:
    columns = {"question": ["how old?", "how far?"], "answers": [["ten", "ten years"], ["a mile"]], "topic": ["age", "way"]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")

    examples = list(read_examples(tmp_path / "pairs.parquet"))

    assert [(one.text, one.captions, one.tags) for one in examples] == [
        ("how old?", ["ten", "ten years"], {"topic": "age"}),
        ("how far?", ["a mile"], {"topic": "way"}),
    ]


def test_questions_on_pictures_are_not_read_as_pairs_of_texts(tmp_path: Path) -> None:
    columns = {"image": [picture("red")], "question": ["which colour?"], "answer": ["red"]}
    pq.write_table(pa.table(columns), tmp_path / "vqa.parquet")

    with pytest.raises(DataError, match=r"has the columns image, question, answer\. An image column"):
        list(read_examples(tmp_path / "vqa.parquet"))


def test_the_shards_of_a_dataset_of_texts_are_read_as_what_was_pushed(attune_home: Path, push: Push) -> None:
    examples = questions(6)
    examples[0].tags = {"lang": "en"}
    report = push("questions", examples, batch_size=6)

    read = list(read_examples(store.content_folder(report.fingerprint)))

    assert [(one.text, one.captions, one.label, one.tags) for one in read] == [
        (one.text, one.captions, one.label, one.tags) for one in examples
    ]
    assert push("again", read).fingerprint == report.fingerprint


def test_what_says_the_same_as_another_query_is_no_fair_negative_of_it() -> None:
    pairs = pairs_of(
        how_old=["ten", "the age"], How_Old=["eleven"], the_age=["how old?"], how_far=["a mile"], how_wide=["A mile!"]
    )
    duplicates = Duplicates(pairs.captions, None, pairs.groups, queries=pairs.queries)
    rows = np.arange(len(pairs))
    sample = Captions(
        words_to_tokens, Pairs("", pairs.images, [["1"] * len(c) for c in pairs.captions], pairs.groups)
    ).sample(rows, "all", np.random.default_rng(0))

    found = duplicates.ignored(rows, sample).int().tolist()

    #            ten  the age  eleven  how old?  a mile  A mile!
    assert found == [
        [0, 0, 1, 1, 0, 0],  # how old: the answer to the same question in other letters, and the question itself
        [1, 1, 0, 1, 0, 0],  # How Old
        [0, 1, 0, 0, 0, 0],  # the age: the very text, as a document of another
        [0, 0, 0, 0, 0, 1],  # how far: a document of its own too
        [0, 0, 0, 0, 1, 0],
    ]


def test_held_out_texts_leak_as_they_are_in_other_letters_and_the_other_way_round() -> None:
    train = pairs_of(how_old=["ten"], good_day=["hello", "hi"], how_far=["a mile"])
    test = pairs_of(how_old=["twelve"], Good__Day=["a greeting"], hello=["Good day!"], how_wide=["A mile."], a_mile=["long"])

    leaks = find_text_leaks(train, test)

    assert (leaks.exact, leaks.near, leaks.rows) == ([0], [(1, 1), (2, 1)], [0, 1, 2])
    assert leaks.captions == 1  # a mile
    assert leaks.describe() == (
        "Held-out queries that are training queries, or say the same as one: 3 (1 the same text, 2 nearly alike). On these "
        "a model may be measured on what it learnt. Held-out documents that training queries have too: 1."
    )
    assert find_text_leaks(train.take([2]), test.take([0])).describe() == ""


def test_pairs_of_pictures_are_of_their_own_kind(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Push
) -> None:
    report = push("shapes", make_examples(5))

    pairs = load_pairs(report.fingerprint)
    assert (report.kind, report.texts, pairs.kind, pairs.queries) == (IMAGE, 0, IMAGE, [])
    assert pairs.names == [captions[0] for captions in pairs.captions]


def test_held_out_texts_that_were_negatives_are_counted_and_no_rows_that_leak() -> None:
    test = pairs_of(how_old=["ten"], how_far=["a mile", "A league!"], a_yard=["three feet"])

    assert count_negatives(["a league", "ten", "Ten.", "a yard", "an inch"], test) == 3
    assert count_negatives([], test) == 0
    leaks = Leaks(exact=[], near=[], captions=0, negatives=3, kind=test.kind)
    assert leaks.rows == []
    assert leaks.describe().startswith("Held-out queries or documents that were trained on as negatives: 3. Training")


@pytest.mark.parametrize(("kind", "said"), [(IMAGE, "captions"), (SINGLE_TEXT, "texts")])
def test_held_out_negatives_are_called_what_they_are(kind: Kind, said: str) -> None:
    leaks = Leaks(exact=[], near=[], captions=0, negatives=1, kind=kind)

    assert leaks.describe().startswith(f"Held-out {said} that were trained on as negatives: 1.")
