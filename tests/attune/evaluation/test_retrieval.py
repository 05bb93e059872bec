import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score

from attune.errors import SettingsError
from attune.evaluation.places import Places, places
from attune.evaluation.ranking import ranks
from attune.evaluation.relevance import Relevance, from_owner, from_pairs
from attune.evaluation.retrieval import figures, query_values
from attune.metrics import retrieval_metrics
from tests.attune.evaluation.test_places import labelled_problem, unit
from tests.attune.test_metrics import random_problem


def placed(ranked: Sequence[Sequence[int]], gallery: int, grades: Sequence[Sequence[float]] | None = None) -> Places:
    """Places of queries whose right answers stand as given."""
    query = [number for number, found in enumerate(ranked) for _ in found]
    answer = [row for found in ranked for row in range(len(found))]
    grade = None if grades is None else [value for found in grades for value in found]
    relevance = from_pairs(query, answer, len(ranked), gallery, grade)
    return Places(relevance, np.array([rank for found in ranked for rank in found]), np.zeros(len(ranked), bool), gallery)


def slow_values(grades_in_order: list[float], k: int) -> dict[str, float]:
    """One query's figures from the grades of all its answers, best scored first; 0 is wrong."""
    right = [grade > 0 for grade in grades_in_order]
    count, first = sum(right), right.index(True) + 1
    looked_at = right[:k]
    precisions = [sum(right[: place + 1]) / (place + 1) for place in range(len(looked_at)) if right[place]]
    gain, ideal = (
        sum(grade / math.log2(place + 2) for place, grade in enumerate(order[:k]))
        for order in (grades_in_order, sorted(grades_in_order, reverse=True))
    )
    return {
        f"hit@{k}": float(any(looked_at)),
        f"recall@{k}": sum(looked_at) / count,
        f"precision@{k}": sum(looked_at) / k,
        f"mrr@{k}": 1 / first if first <= k else 0.0,
        f"map@{k}": sum(precisions) / min(count, k),
        f"ndcg@{k}": gain / ideal,
        "r_precision": sum(right[:count]) / count,
        "map@r": sum(sum(right[: place + 1]) / (place + 1) for place in range(count) if right[place]) / count,
        "rank": float(first),
    }


def in_order(queries: np.ndarray, answers: np.ndarray, relevance: Relevance, query: int) -> list[float]:
    """Grades of all answers to a query, best scored first; of equals the lower grade, so the wrong one first."""
    scores = np.round(queries[query].astype(np.float64) @ answers.T.astype(np.float64), 13)
    grades = np.zeros(len(answers))
    mine = relevance.query == query
    grades[relevance.answer[mine]] = relevance.grade[mine]
    return [float(grade) for grade in grades[np.lexsort((grades, -scores))]]


def test_figures_of_a_query_done_by_hand() -> None:
    found = query_values(placed([[4, 1]], gallery=6), ks=(1, 2, 5))

    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "hit@1": 1.0,
            "recall@1": 1 / 2,
            "precision@1": 1.0,
            "mrr@1": 1.0,
            "map@1": 1.0,  # one is all that can be found among one
            "ndcg@1": 1.0,
            "hit@2": 1.0,
            "recall@2": 1 / 2,
            "precision@2": 1 / 2,
            "mrr@2": 1.0,
            "map@2": 1 / 2,  # 1/1 at place 1, over both
            "ndcg@2": 1 / (1 + 1 / math.log2(3)),
            "hit@5": 1.0,
            "recall@5": 1.0,
            "precision@5": 2 / 5,
            "mrr@5": 1.0,
            "map@5": (1 / 1 + 2 / 4) / 2,
            "ndcg@5": (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
            "r_precision": 1 / 2,
            "map@r": 1 / 2,  # 1/1 at place 1; the other is not among the first two
            "rank": 1.0,
        }
    )


def test_ndcg_of_graded_answers_done_by_hand() -> None:
    found = query_values(placed([[1, 3, 2]], gallery=9, grades=[[1, 3, 0.5]]), ks=(2, 3))

    # places 1, 2, 3 have the grades 1, 0.5, 3; best would be 3, 1, 0.5
    assert found["ndcg@2"].item() == pytest.approx((1 + 0.5 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert found["ndcg@3"].item() == pytest.approx((1 + 0.5 / math.log2(3) + 3 / 2) / (3 + 1 / math.log2(3) + 0.5 / 2))


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_a_slow_count_over_all_scores(seed: int) -> None:
    queries, answers, relevance = labelled_problem(seed)
    ks = (1, 3, 10, len(answers), 200)

    found = query_values(places(queries, answers, relevance), ks)

    for query in range(len(queries)):
        if query not in relevance.query:
            assert all(math.isnan(value[query]) for value in found.values())
            continue
        grades = in_order(queries, answers, relevance, query)
        for k in ks:
            slow = slow_values(grades, k)
            assert {name: found[name][query] for name in slow} == pytest.approx(slow)


@pytest.mark.parametrize("seed", range(2))
def test_figures_equal_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, answers = unit(rng.standard_normal((30, 8))), unit(rng.standard_normal((40, 8)))  # without ties
    right = rng.random((30, 40)) < 0.15
    right[:, 0] = True
    grades = right * rng.integers(1, 4, (30, 40))
    query, answer = np.nonzero(right)

    found = query_values(
        places(queries, answers, from_pairs(query, answer, 30, 40, grades[query, answer])), ks=(1, 5, 10, 40, 99)
    )

    scores = queries.astype(np.float64) @ answers.T.astype(np.float64)
    for k in (1, 5, 10, 40, 99):
        assert found[f"ndcg@{k}"].mean() == pytest.approx(ndcg_score(grades, scores, k=k))
    each = [average_precision_score(right[row], scores[row]) for row in range(30)]
    for k in (40, 99):
        assert found[f"map@{k}"].tolist() == pytest.approx(each)
    assert found["map@40"].mean() == pytest.approx(label_ranking_average_precision_score(right, scores))


def test_with_one_right_answer_each_the_figures_are_those_of_clip_papers() -> None:
    images, texts, owner = random_problem(4)
    papers = retrieval_metrics(ranks(images, texts, owner))
    relevance = from_owner(owner, len(images))
    found = {
        "text_to_image": places(texts, images, relevance["text_to_image"]),
        "image_to_text": places(images, texts, relevance["image_to_text"]),
    }

    for direction, placed_here in found.items():
        values = query_values(placed_here)
        for k in (1, 5, 10):
            assert values[f"hit@{k}"].mean() == pytest.approx(papers[f"{direction}_recall@{k}"])
            if direction == "text_to_image":  # finding one of one is finding all
                assert np.array_equal(values[f"hit@{k}"], values[f"recall@{k}"])
                assert np.array_equal(values[f"mrr@{k}"], values[f"map@{k}"])
        assert figures(placed_here)["median_rank"] == papers[f"{direction}_median_rank"]


def test_a_k_above_the_number_of_answers_looks_at_all_of_them() -> None:
    found = query_values(placed([[1, 3]], gallery=3), ks=(3, 10))

    for name in ("hit", "recall", "mrr", "map", "ndcg"):
        assert found[f"{name}@10"] == found[f"{name}@3"]
    assert found["precision@3"] == 2 / 3
    assert found["precision@10"] == 2 / 10  # divided by k all the same


def test_one_picture_with_one_text_is_found_by_any_model() -> None:
    found = query_values(placed([[1]], gallery=1))

    assert {name: value.item() for name, value in found.items() if "precision@" not in name} == dict.fromkeys(
        [f"{name}@{k}" for k in (1, 5, 10) for name in ("hit", "recall", "mrr", "map", "ndcg")]
        + ["r_precision", "map@r", "rank"],
        1.0,
    )
    assert [found[f"precision@{k}"].item() for k in (1, 5, 10)] == [1, 1 / 5, 1 / 10]


def test_a_model_that_embeds_everything_alike_finds_nothing() -> None:
    one = np.full((40, 16), 0.25, dtype=np.float32)

    found = places(one, one, from_pairs(range(40), range(40), 40, 40))

    values = query_values(found)
    assert {value.sum() for name, value in values.items() if name != "rank"} == {0}
    assert figures(found) == {"median_rank": 40, "mean_rank": 40, "tie_rate": 1, "queries_without_answer": 0}


def test_queries_without_a_right_answer_have_no_figures_and_are_counted() -> None:
    found = placed([[1], [], [3], [8], []], gallery=9)
    found.tied[0] = True

    values = query_values(found, ks=(5,))

    assert all(np.isnan(value).tolist() == [False, True, False, False, True] for value in values.values())
    assert np.nanmean(values["hit@5"]) == pytest.approx(2 / 3)  # places 1, 3 and 8
    assert np.nanmean(values["mrr@5"]) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert figures(found) == pytest.approx(
        {"median_rank": 3, "mean_rank": 4, "tie_rate": 1 / 3, "queries_without_answer": 2}
    )


def test_a_k_below_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="0 is less than 1"):
        query_values(placed([[1]], gallery=1), ks=(5, 0))
