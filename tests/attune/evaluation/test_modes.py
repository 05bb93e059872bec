import math

import numpy as np
import pytest

from attune.errors import DataError
from attune.evaluation.modes import clip_benchmark, finetuner, imageclef
from attune.evaluation.places import places
from attune.evaluation.relevance import from_owner
from benchmarks.retrieval import clip_benchmark as theirs
from tests.attune.evaluation.test_places import unit
from tests.attune.evaluation.test_retrieval import placed
from tests.attune.test_metrics import random_problem


@pytest.mark.parametrize("seed", range(3))
def test_clip_benchmark_figures_are_those_of_its_own_functions(seed: int) -> None:
    images, texts, owner = random_problem(seed)
    relevance = from_owner(owner, len(images))

    ours = {
        **clip_benchmark(places(texts, images, relevance["text_to_image"]), "text_to_image"),
        **clip_benchmark(places(images, texts, relevance["image_to_text"]), "image_to_text"),
    }

    expected = theirs(images, texts, owner)
    for k in (1, 5, 10):
        assert ours[f"image_retrieval_recall@{k}"].mean() == pytest.approx(expected[f"text_to_image_recall@{k}"], abs=1e-6)
        assert ours[f"text_retrieval_recall@{k}"].mean() == pytest.approx(expected[f"image_to_text_recall@{k}"], abs=1e-6)
    assert len(ours) == 6


def test_clip_benchmark_has_no_figure_of_a_picture_without_a_text() -> None:
    found = clip_benchmark(placed([[1], [], [7]], 9), "image_to_text")

    assert np.array_equal(found["text_retrieval_recall@5"], [1, np.nan, 0], equal_nan=True)


# Each row: places of the right answers, how many answers there are, k, and what DocArray 0.21's functions give for it.
FINETUNER = {
    "two of three found": (
        [4, 2, 9],
        30,
        5,
        {
            "precision": 2 / 5,
            "recall": 2 / 3,
            "f1": 1 / 2,  # 2 * (2/5) * (2/3) / (2/5 + 2/3) = (8/15) / (16/15)
            "hit": 1,
            "average_precision": (1 / 2 + 2 / 4) / 2,  # over the two found, not over three
            "reciprocal_rank": 1 / 2,
            "dcg": 1 / math.log2(2) + 1 / math.log2(4),
        },
    ),
    "the first two count alike in dcg": (
        [1, 2, 3],
        30,
        20,
        {
            "precision": 3 / 20,
            "recall": 1,
            "f1": 6 / 23,  # 2 * (3/20) / (23/20)
            "hit": 1,
            "average_precision": 1,
            "reciprocal_rank": 1,
            "dcg": 1 + 1 + 1 / math.log2(3),
        },
    ),
    "none found": (
        [21],
        30,
        20,
        dict.fromkeys(["precision", "recall", "f1", "hit", "average_precision", "reciprocal_rank", "dcg"], 0),
    ),
    "fewer answers than k": (
        [2],
        4,
        20,
        {
            "precision": 1 / 4,  # of the four there are
            "recall": 1,
            "f1": 2 / 5,  # 2 * (1/4) / (5/4)
            "hit": 1,
            "average_precision": 1 / 2,
            "reciprocal_rank": 1 / 2,
            "dcg": 1,
        },
    ),
}


@pytest.mark.parametrize(("ranked", "gallery", "k", "expected"), FINETUNER.values(), ids=FINETUNER)
def test_finetuner_figures_done_by_hand(ranked: list[int], gallery: int, k: int, expected: dict[str, float]) -> None:
    found = finetuner(placed([ranked], gallery), k)

    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_finetuner_looks_at_twenty_answers_and_has_no_figure_without_a_right_one() -> None:
    found = finetuner(placed([[20], [21], []], gallery=50))

    assert found["hit"].tolist()[:2] == [1, 0]
    assert all(np.isnan(value[2]) for value in found.values())


def test_imageclef_compares_each_query_with_its_own_batch_only() -> None:
    rng = np.random.default_rng(0)
    queries, answers = unit(rng.standard_normal((150, 6))), unit(rng.standard_normal((150, 6)))

    found = imageclef(queries, answers)

    scores = queries.astype(np.float64) @ answers.T.astype(np.float64)
    for query in range(150):
        batch = slice(query // 64 * 64, query // 64 * 64 + 64)
        assert found[query] == 1 / (scores[query, batch] >= scores[query, query] - 1e-12).sum()


def test_imageclef_counts_nothing_after_k_and_a_pair_that_is_alone_is_found() -> None:
    one = np.full((65, 16), 0.25, dtype=np.float32)  # all alike: rank 64 of 64, and 1 of 1

    assert imageclef(one, one).tolist() == [1 / 64] * 64 + [1]
    assert imageclef(one, one, k=10).tolist() == [0] * 64 + [1]


def test_imageclef_needs_an_answer_for_each_query() -> None:
    with pytest.raises(DataError, match="3 queries and 2 answers"):
        imageclef(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:2])
