import logging
import math

import numpy as np
import pytest

from attune.errors import DataError, EvaluationError
from attune.evaluation.neighbours import neighbours


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def random_problem(seed: int, train: int, queries: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((train, 8))), rng.integers(0, classes, train), unit(rng.standard_normal((queries, 8)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (4, 0.07), (20, 0.5)])
def test_votes_equal_a_slow_count(seed: int, k: int, temperature: float) -> None:
    train, targets, queries = random_problem(seed, train=45, queries=13, classes=6)

    found = neighbours(train, targets, queries, 6, k=k, temperature=temperature)

    slow = np.zeros((13, 6))
    for row, query in enumerate(queries.astype(np.float64)):
        cosines = [float(query @ picture) for picture in train.astype(np.float64)]
        for picture in sorted(range(45), key=lambda number: -cosines[number])[:k]:
            slow[row, targets[picture]] += math.exp(cosines[picture] / temperature)
    assert found.dtype == np.float32
    assert found == pytest.approx(slow / slow.sum(axis=1, keepdims=True), abs=1e-5)


def test_votes_of_a_problem_done_by_hand() -> None:
    angles = np.arccos([0.9, 0.9, 0.83, -1.0])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    found = neighbours(train, np.array([0, 1, 1, 2]), np.array([[1, 0]], dtype=np.float32), 4, k=3)

    # weights by the nearest: 1, 1 and e^((0.83 - 0.9) / 0.07) = e^-1; the last picture is not among the three
    total = 2 + math.exp(-1)
    assert found == pytest.approx(np.array([[1 / total, (1 + math.exp(-1)) / total, 0, 0]]), abs=1e-5)


def test_more_neighbours_than_pictures_are_all_pictures_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train, targets, queries = random_problem(0, train=7, queries=3, classes=2)

    with caplog.at_level(logging.WARNING):
        found = neighbours(train, targets, queries, 2)

    assert "k = 20 neighbours, but there are only 7 training items" in caplog.text
    assert np.array_equal(found, neighbours(train, targets, queries, 2, k=7))


def test_a_small_temperature_leaves_the_vote_to_the_nearest() -> None:
    train, targets, queries = random_problem(1, train=30, queries=9, classes=5)

    found = neighbours(train, targets, queries, 5, temperature=1e-6)

    assert found == pytest.approx(neighbours(train, targets, queries, 5, k=1), abs=1e-3)


def test_a_training_class_that_is_none_of_the_classes_is_refused() -> None:
    train, targets, queries = random_problem(0, train=30, queries=3, classes=5)

    with pytest.raises(DataError, match="not among the 4 classes"):
        neighbours(train, targets, queries, 4)


def test_no_training_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="0 pictures"):
        neighbours(np.empty((0, 8), dtype=np.float32), np.empty(0, dtype=np.int64), np.eye(8, dtype=np.float32), 3)


@pytest.mark.parametrize("which", ["train", "queries"])
def test_what_is_no_number_has_no_votes_and_is_refused(which: str) -> None:
    train, targets, queries = random_problem(0, train=30, queries=3, classes=5)
    {"train": train, "queries": queries}[which][1] = np.nan

    with pytest.raises(EvaluationError, match=rf"{which}: 1 of \d+ embeddings .* the first is row 1, of length nan"):
        neighbours(train, targets, queries, 5)


@pytest.mark.parametrize("temperature", [0, -0.1, math.inf, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    train, targets, queries = random_problem(0, train=30, queries=3, classes=5)

    with pytest.raises(EvaluationError, match=rf"temperature = {temperature}: .* Use one above 0"):
        neighbours(train, targets, queries, 5, temperature=temperature)
