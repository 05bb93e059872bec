import numpy as np
import pytest
import torch

from attune.errors import DataError
from attune.evaluation import places as places_module
from attune.evaluation import ranking
from attune.evaluation.places import Places, places
from attune.evaluation.ranking import ranks
from attune.evaluation.relevance import Relevance, from_labels, from_owner, from_pairs
from attune.metrics import DIRECTIONS
from tests.attune.test_metrics import random_problem

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def slow_places(queries: np.ndarray, answers: np.ndarray, relevance: Relevance, exclude_self: bool = False) -> Places:
    """One query at a time, from all its scores in float64."""
    scores = queries.astype(np.float64) @ answers.T.astype(np.float64)
    rank, tied = [], []
    for query in range(relevance.queries):
        mine = np.flatnonzero(relevance.query == query)
        right, grade = relevance.answer[mine], relevance.grade[mine]
        wrong = np.setdiff1d(np.arange(len(answers)), [*right, query] if exclude_self else right)
        own, others = scores[query, right], scores[query, wrong]
        tied.append(bool((np.abs(own[:, None] - others) < 1e-12).any()))
        for score, value in zip(own, grade, strict=True):
            alike = np.abs(own - score) < 1e-12
            before = (others >= score - 1e-12).sum() + ((own > score) & ~alike).sum() + (alike & (grade < value)).sum()
            rank.append(1 + int(before))
    return Places(relevance, np.array(rank), np.array(tied), len(answers) - exclude_self)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def labelled_problem(seed: int, items: int = 70, dim: int = 6) -> tuple[np.ndarray, np.ndarray, Relevance]:
    """Queries and answers of one to many right answers each, some none, with grades that differ and exact ties."""
    rng = np.random.default_rng(seed)
    queries, answers = unit(rng.standard_normal((items, dim))), unit(rng.standard_normal((items + 9, dim)))
    answers[5:25] = answers[rng.integers(25, 45, 20)]  # the same answer twice, right or wrong
    right = rng.random((items, items + 9)) < rng.choice([0, 0.02, 0.1, 0.5], size=(items, 1))
    query, answer = np.nonzero(right)
    grade = rng.permutation(len(query)) + 1.0  # all differ, so places do not depend on the order of equals
    return queries, answers, from_pairs(query, answer, items, items + 9, grade)


def small_tiles(monkeypatch: pytest.MonkeyPatch, tile: int, widest: int = 11) -> None:
    monkeypatch.setattr(places_module, "TILE", tile)
    monkeypatch.setattr(ranking, "WIDEST", widest)


def test_places_of_a_problem_done_by_hand() -> None:
    answers = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0.6, -0.8], [0, 1]], dtype=np.float32)
    query = np.array([[1, 0]], dtype=np.float32)

    found = places(query, answers, from_pairs([0, 0, 0], [1, 2, 4], 1, 5))

    # scores 1.0 wrong, 0.8 right, 0.6 right, 0.6 wrong, 0.0 right: the wrong 0.6 stands before the right one
    assert found.rank.tolist() == [2, 4, 5]
    assert found.tied.tolist() == [True]
    assert found.gallery == 5
    assert found.best.tolist() == [2]
    assert found.nth.tolist() == [1, 2, 3]


def test_of_right_answers_that_score_alike_the_one_with_the_lower_grade_stands_first() -> None:
    answers = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)

    found = places(answers[:1], answers, from_pairs([0, 0, 0], [0, 1, 3], 1, 4, grade=[3, 1, 2]))

    assert found.rank.tolist() == [3, 1, 2]
    assert not found.tied.any()  # no wrong answer is among the equals


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tile", [1, 60, 2_000_000])
def test_places_equal_a_slow_count(seed: int, tile: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tile)
    queries, answers, relevance = labelled_problem(seed)

    found, slow = places(queries, answers, relevance, device=device), slow_places(queries, answers, relevance)

    assert 0 < slow.tied.sum() < len(queries)
    assert len(np.unique(relevance.query)) < len(queries)  # some have no right answer
    assert found.rank.tolist() == slow.rank.tolist()
    assert found.tied.tolist() == slow.tied.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [1, 60, 2_000_000])
def test_items_searched_among_themselves_do_not_find_themselves(
    tile: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tile)
    rng = np.random.default_rng(3)
    items = unit(rng.standard_normal((60, 4)))
    items[7] = items[30]
    labels = [str(label) for label in rng.integers(0, 9, 60)]
    relevance = from_labels(labels, labels, exclude_self=True)

    found, slow = places(items, items, relevance, True, device), slow_places(items, items, relevance, exclude_self=True)

    assert sorted(found.rank.tolist()) == sorted(slow.rank.tolist())
    assert found.best.tolist() == slow.best.tolist()
    assert found.tied.tolist() == slow.tied.tolist()
    assert found.gallery == 59


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [40, 2_000_000])
@pytest.mark.parametrize("few", [0, 1000])
def test_scores_that_float32_cannot_tell_apart_are_told_apart(
    few: int, tile: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tile)
    monkeypatch.setattr(ranking, "FEW", few)
    rng = np.random.default_rng(0)
    answers = unit(rng.standard_normal(64) + 1e-7 * rng.standard_normal((90, 64)))
    queries = unit(rng.standard_normal((30, 64)))
    grade = np.arange(90) + 1.0
    relevance = from_pairs(np.repeat(np.arange(30), 3), np.arange(90), 30, 90, grade)

    found, slow = places(queries, answers, relevance, device=device), slow_places(queries, answers, relevance)

    assert len(set(slow.rank)) > 20  # float32 would find most of them equal
    assert found.rank.tolist() == slow.rank.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_places_are_the_ranks(seed: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, 500, 29)
    images, texts, owner = random_problem(seed)
    texts[:40:3] = texts[1]
    images[7] = images[3]
    images[11] = np.nan  # a picture and some captions that are no numbers, as queries and as answers, right and wrong
    texts[[2, 50]] = np.nan
    expected = ranks(images, texts, owner)

    relevance = from_owner(owner, len(images))
    found = {
        "text_to_image": places(texts, images, relevance["text_to_image"], device=device),
        "image_to_text": places(images, texts, relevance["image_to_text"], device=device),
    }

    assert {key: found[key].best.tolist() for key in DIRECTIONS} == {key: expected[key].tolist() for key in DIRECTIONS}


def test_what_is_no_number_counts_against_the_model_and_ties_with_nothing() -> None:
    answers = np.eye(4, dtype=np.float32)
    answers[3] = np.nan
    queries = np.array([[1, 0, 0, 0], [np.nan] * 4], dtype=np.float32)

    found = places(queries, answers, from_pairs([0, 0, 1, 1], [0, 1, 0, 1], 2, 4))

    # query 0 scores 1 (right), 0 (right), 0 (wrong) and NaN (wrong); query 1 scores NaN everywhere
    assert found.rank.tolist() == [2, 4, 3, 4]
    assert found.tied.tolist() == [True, False]

    right = places(queries[:1], answers, from_pairs([0, 0], [0, 3], 1, 4))

    assert right.rank.tolist() == [1, 4]  # the right answer that is no number is last


@pytest.mark.parametrize("items", [5, 37, 130])
def test_a_model_that_embeds_everything_alike_has_its_right_answers_last(items: int) -> None:
    one = np.full((items, 33), 33**-0.5, dtype=np.float32)
    labels = [str(item % 3) for item in range(items)]
    relevance = from_labels(labels, labels, exclude_self=True)

    found = places(one, one, relevance, exclude_self=True)

    # of items - 1 answers to each, the right ones take the last places
    expected = {item: list(range(items - count, items)) for item, count in enumerate(found.right)}
    for item, ranked in expected.items():
        assert sorted(found.rank[relevance.query == item]) == ranked
    assert found.tied.tolist() == (found.right > 0).tolist()


def test_a_program_that_allows_less_precise_products_gets_the_same_places_and_keeps_its_setting() -> None:
    queries, answers, relevance = labelled_problem(1)
    expected = places(queries, answers, relevance).rank.tolist()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert places(queries, answers, relevance).rank.tolist() == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_one_picture_and_one_text() -> None:
    one = np.array([[1, 0]], dtype=np.float32)

    found = places(one, one, from_pairs([0], [0], 1, 1))

    assert (found.rank.tolist(), found.tied.tolist()) == ([1], [False])


def test_embeddings_of_other_items_are_refused() -> None:
    one = np.eye(3, dtype=np.float32)
    with pytest.raises(DataError, match="embeddings of 3 queries and 3 answers, but relevance is of 3 and 4"):
        places(one, one, from_pairs([0], [0], 3, 4))
    with pytest.raises(DataError, match="1 items that are right for themselves"):
        places(one, one, from_pairs([0, 1], [0, 2], 3, 3), exclude_self=True)
    with pytest.raises(DataError, match="3 queries, 2 answers"):
        places(one, one[:2], from_pairs([0], [1], 3, 2), exclude_self=True)
