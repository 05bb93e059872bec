"""Scores, negatives and margins as data: read, checked, stored, and drawn for a batch."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from docarray import DocList

from attune.data import store
from attune.data.captions import Captions
from attune.data.duplicates import Duplicates
from attune.data.keys import batch_key
from attune.data.pairs import Pairs, load_pairs
from attune.data.read import read_examples
from attune.data.validate import validate_examples
from attune.errors import DataError
from attune.kinds import TEXT
from attune.schemas import DatasetReport, TrainingExample
from tests.attune.test_captions import words_to_tokens
from tests.attune.texts import graded, questions, with_negatives

Push = Callable[..., DatasetReport]


def table(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_scores_are_read_from_a_table_row_by_row(tmp_path: Path) -> None:
    path = table(tmp_path, "sentence1,sentence2,score\na dog,a puppy,0.9\na cat,a car,0.05\na dog,a cat,0.4\n")

    first, second = read_examples(path)

    assert (first.text, first.captions, first.scores) == ("a dog", ["a puppy", "a cat"], [0.9, 0.4])
    assert (second.captions, second.scores, second.tags) == (["a car"], [0.05], {})


def test_negatives_and_margins_are_read_from_a_table(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "query\tpositive\tnegative\tmargin\nhow old?\tten\tblue\t0.7\nhow old?\tten\tfar\t0.9\nhow far?\ta mile\t\t\n",
        "pairs.tsv",
    )

    first, second = read_examples(path)
    [good, _], problems = validate_examples([first, second])

    assert (good.captions, good.negatives, good.margins) == (["ten"], ["blue", "far"], [0.7, 0.9])
    assert (second.negatives, second.margins) == ([], [])
    assert problems == []


def test_scores_and_negatives_are_read_from_parquet_whether_one_or_several(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {
        "query": ["a", "b"],
        "documents": [["x", "y"], ["z"]],
        "negative": [["n", "m"], None],
        "margin": [[1, 2.5], None],
    }
    pq.write_table(pa.table(columns), path)
    one = tmp_path / "scored.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "document": ["x", "y"], "score": [3, None]}), one)

    first, second = read_examples(path)
    third, fourth = read_examples(one)

    assert (first.negatives, first.margins) == (["n", "m"], [1.0, 2.5])
    assert (second.negatives, second.margins) == ([], [])
    assert third.scores == [3.0]
    assert math.isnan(fourth.scores[0])


@pytest.mark.parametrize(
    ("given", "reason", "said"),
    [
        ({"scores": [0.5]}, "number_count", "1 scores of 2 captions"),
        ({"scores": [0.5, math.nan]}, "no_number", "1 of the scores are missing, no numbers, or beyond"),
        ({"scores": [0.5, 1e308]}, "no_number", "Give each of the captions a number below that"),
        ({"scores": [0.5, math.inf]}, "no_number", "Give each of the captions a number"),
        ({"negatives": ["n"], "margins": [1.0, 2.0]}, "number_count", "2 margins of 1 negatives"),
        ({"negatives": ["n"], "margins": [math.nan]}, "no_number", "1 of the margins"),
        ({"margins": [1.0]}, "number_count", "1 margins of 0 negatives"),
        ({"negatives": ["n"], "scores": [1, 2]}, "scores_and_negatives", "low scores, or leave the scores out"),
    ],
)
def test_numbers_that_are_not_one_for_each_text_are_reported_and_the_example_not_used(
    given: dict[str, object], reason: str, said: str
) -> None:
    good, problems = validate_examples([TrainingExample(text="q", captions=["a", "b"], source="here", **given)])

    assert good == []
    [problem] = problems
    assert (problem.reason, problem.source) == (reason, "here")
    assert said in problem.advice


def test_an_example_has_a_thousand_negatives_at_most() -> None:
    lists = [[f"wrong {number}" for number in range(count)] for count in (1000, 1001)]
    given = [TrainingExample(text="a query", captions=["right"], negatives=negatives) for negatives in lists]

    good, problems = validate_examples(given)

    assert [len(example.negatives) for example in good] == [1000]
    assert [(problem.source, problem.field, problem.reason) for problem in problems] == [
        ("example 2", "negatives", "too_many")
    ]


def test_numbers_stay_with_their_texts_where_some_are_left_out() -> None:
    example = TrainingExample(text="q", captions=["a", " ", "b", "a"], scores=[0.1, 0.2, 0.3, 0.4])
    other = TrainingExample(text="r", captions=["a"], negatives=["x", "nan", "a ", "y\x00"], margins=[1, 2, 3, 4])

    (first, second), problems = validate_examples([example, other])

    assert (first.captions, first.scores) == (["a", "b"], [0.1, 0.3])
    assert (second.negatives, second.margins) == (["x", "y"], [1, 4])
    reasons = [problem.reason for problem in problems]
    assert reasons == ["empty_caption", "empty_negative", "negative_is_caption", "control_characters"]


def test_what_is_stored_comes_back_and_is_read_again(attune_home: Path, push: Push, tmp_path: Path) -> None:
    for name, examples in (("graded", graded(20)), ("margins", with_negatives(20, margins=True))):
        report = push(name, examples)
        pairs = load_pairs(report.fingerprint)
        known = {one.text: one for one in examples}

        for query, captions, row in zip(pairs.queries, pairs.captions, range(len(pairs)), strict=True):
            assert captions == known[query].captions
            if pairs.is_graded:
                assert pairs.scores[row] == known[query].scores
            else:
                assert (pairs.negatives[row], pairs.margins[row]) == (known[query].negatives, known[query].margins)
        again = push(f"{name}-again", list(read_examples(store.content_folder(report.fingerprint))))
        assert again.fingerprint == report.fingerprint
    kinds = [load_pairs(store.describe(name).fingerprint).is_graded for name in ("graded", "margins")]
    assert kinds == [True, False]


def test_rows_of_one_query_become_one_with_each_texts_number(attune_home: Path, push: Push) -> None:
    rows = [
        TrainingExample(text="q", captions=["b"], scores=[0.2]),
        TrainingExample(text="q", captions=["a"], scores=[0.7]),
        TrainingExample(text="r", captions=["a"], scores=[0.1]),
        TrainingExample(text="s", captions=["a"], scores=[0.1]),
    ]
    others = [
        TrainingExample(text="q", captions=["a"], negatives=["c", "b"]),
        TrainingExample(text="q", captions=["b"], negatives=["d"]),
        TrainingExample(text="r", captions=["x"]),
    ]

    scored, negative = (load_pairs(push(name, given).fingerprint) for name, given in (("one", rows), ("two", others)))

    row = scored.queries.index("q")
    assert dict(zip(scored.captions[row], scored.scores[row], strict=True)) == {"a": 0.7, "b": 0.2}
    assert negative.negatives[negative.queries.index("q")] == ["c", "d"]  # b is a caption of it
    assert negative.negatives[negative.queries.index("r")] == []


def test_negatives_may_be_in_some_batches_alone(attune_home: Path, push: Push) -> None:
    report = push("some", [*with_negatives(16), *questions(40, documents=1)[16:]])

    pairs = load_pairs(report.fingerprint)

    assert len(pairs) == len(pairs.negatives) == 40
    assert sorted(map(len, pairs.negatives)) == [0] * 24 + [2] * 16
    assert pairs.margins == []


def test_fingerprints_count_them_and_are_as_before_without(attune_home: Path, push: Push) -> None:
    examples = questions(10, documents=1)
    plain = push("plain", examples).fingerprint
    found = {plain}
    for number, change in enumerate(
        ({"scores": [0.5]}, {"scores": [0.6]}, {"negatives": ["n"]}, {"negatives": ["n"], "margins": [1.0]})
    ):
        report = push(f"changed-{number}", [one.model_copy(update=change) for one in examples])
        found.add(report.fingerprint)
        assert (report.texts, report.captions, report.matches) == (10, 10, 0)

    assert len(found) == 5
    assert "scores" not in pq.read_schema(next(store.content_folder(plain).glob("part-*.parquet"))).names


def test_keys_of_batches_tell_them_apart() -> None:
    changes = ({}, {"scores": [0.5]}, {"scores": [0.25]}, {"negatives": ["n"]}, {"negatives": ["n"], "margins": [0.5]})

    assert len({batch_key([TrainingExample(text="q", captions=["a"], **change)]) for change in changes}) == 5


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"scores": [1.0]}, {}, "20 of its 40 captions have scores"),
        ({"negatives": ["n"], "margins": [1.0]}, {"negatives": ["n"]}, "20 of its 40 negatives have margins"),
        ({"scores": [1.0]}, {"negatives": ["n"]}, "20 of its 40 captions have scores"),
    ],
)
def test_a_dataset_has_scores_or_margins_whole_or_not_at_all(
    attune_home: Path, push: Push, first: dict[str, object], second: dict[str, object], said: str
) -> None:
    examples = questions(40, documents=1)
    changed = [one.model_copy(update=first if number < 20 else second) for number, one in enumerate(examples)]

    with pytest.raises(DataError, match=said):
        push("half", changed)


def test_they_travel_as_they_are() -> None:
    examples = DocList[TrainingExample]([*graded(3), *with_negatives(3, margins=True)])
    examples[0].scores = [1 / 3, 1e-9]

    again = DocList[TrainingExample].from_protobuf(examples.to_protobuf())

    for one, other in zip(examples, again, strict=True):
        assert (one.scores, one.negatives, one.margins) == (other.scores, other.negatives, other.margins)


NAMES = ["p0", "p1", "p2"]
PAIRS = Pairs(
    "",
    NAMES,
    [["1", "2"], ["3"], ["4"]],
    NAMES,
    negatives=[["5", "6", "7"], [], ["8"]],
    margins=[[0.5, 0.6, 0.7], [], [0.8]],
)


def test_all_negatives_come_with_all_captions_picture_by_picture() -> None:
    sample = Captions(words_to_tokens, PAIRS).sample(np.array([2, 0, 1]), "all", np.random.default_rng(0))

    assert sample.tokens[:, 0].tolist() == words_to_tokens(["4", "8", "1", "2", "5", "6", "7", "3"])[:, 0].tolist()
    assert sample.owners.tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
    assert sample.wrong is not None
    assert sample.wrong.tolist() == [False, True, False, False, True, True, True, False]
    assert sample.positives(3).nonzero().tolist() == [[0, 0], [1, 2], [1, 3], [2, 7]]
    scored = sample.scored(3)
    assert scored is not None
    assert (~scored.isnan()).sum(0).tolist() == [1] * 8
    assert torch.nan_to_num(scored).sum(0).tolist() == pytest.approx([0, -0.8, 0, 0, -0.5, -0.6, -0.7, 0])


def test_negatives_come_in_turn_as_captions_do() -> None:
    captions = Captions(words_to_tokens, PAIRS)
    rows = np.array([0, 1, 2])
    samples = [captions.sample(rows, turn, np.random.default_rng(0)) for turn in range(6)]

    drawn = [number for sample in samples for number in sample.numbers.tolist()]
    assert [drawn.count(number) for number in range(8)] == [3, 3, 6, 6, 2, 2, 2, 6]
    assert all(sample.owners.tolist() == [0, 0, 1, 2, 2] for sample in samples)


def test_scores_of_captions_come_with_them() -> None:
    pairs = Pairs("", NAMES, [["1", "2"], ["3"], ["4"]], NAMES, scores=[[0.1, 0.2], [0.3], [0.4]])

    sample = Captions(words_to_tokens, pairs).sample(np.array([1, 0]), "all", np.random.default_rng(0))

    scored = sample.scored(2)
    assert scored is not None
    assert sample.wrong is None
    assert scored[~scored.isnan()].tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert (~scored.isnan()).nonzero().tolist() == [[0, 0], [1, 1], [1, 2]]


def test_a_negative_that_is_another_querys_document_is_no_negative_of_that_one() -> None:
    names = ["q0", "q1", "q2"]
    queries = ["who?", "a lion", "which?"]
    negatives = [["A dog!", "a lion."], [], ["a fish"]]
    captions = [["a cat"], ["a dog"], ["a bird"]]
    pairs = Pairs("", names, captions, names, kind=TEXT, queries=queries, negatives=negatives)
    sample = Captions(words_to_tokens_of_any, pairs).sample(np.arange(3), "all", np.random.default_rng(0))

    ignored = Duplicates(captions, None, names, queries=queries, negatives=negatives).ignored(np.arange(3), sample)

    # Texts: a cat, A dog!, a lion. of the first; a dog of the second; a bird, a fish of the third.
    assert ignored.nonzero().tolist() == [[1, 1], [1, 2]]


def words_to_tokens_of_any(texts: list[str]) -> torch.Tensor:
    return torch.zeros(len(texts), 1, dtype=torch.int64)


def test_a_subset_keeps_what_belongs_to_each() -> None:
    taken = PAIRS.take([2, 0])

    assert (taken.negatives, taken.margins, taken.scores) == ([["8"], ["5", "6", "7"]], [[0.8], [0.5, 0.6, 0.7]], [])
    assert taken.wrong_texts == ["8", "5", "6", "7"]


def test_their_columns_are_lists_in_the_hugging_face_schema(attune_home: Path, push: Push) -> None:
    report = push("graded", graded(10))

    schema = pq.read_schema(next(store.content_folder(report.fingerprint).glob("part-*.parquet")))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]

    assert set(features) == set(schema.names) >= {"text", "scores"}
    assert "negatives" not in schema.names
