import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from attune.errors import DataError
from attune.evaluation.classification import (
    ClassFigures,
    class_table,
    classification_metrics,
    confusion_matrix,
    mean_per_class_recall,
    per_query,
    predictions,
)


def random_problem(seed: int, queries: int = 60, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, queries)
    scores = rng.standard_normal((queries, classes)).astype(np.float32)
    scores[np.arange(queries), targets] += 1
    return scores, targets


def slow_ranks(scores: np.ndarray, targets: np.ndarray) -> list[int]:
    ranks = []
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        wrong = [score for number, score in enumerate(row) if number != target]
        ranks.append(1 + sum(not score < row[target] for score in wrong))
    return ranks


def test_figures_of_a_problem_done_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.7], [0.3, 0.4]], dtype=np.float32)
    targets = np.array([0, 0, 1])

    found = classification_metrics(scores, targets)

    # Recognised: picture 0, not 1 (class 1 is above), picture 2. Class 0: 1 of 2; class 1: 1 of 1.
    assert found["acc1"] == pytest.approx(2 / 3)
    assert found["mean_per_class_recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert math.isnan(found["acc5"])
    assert confusion_matrix(predictions(scores, targets), targets, 2).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 5, 7])
def test_figures_equal_a_slow_count_and_scikit_learn(seed: int, classes: int) -> None:
    scores, targets = random_problem(seed, classes=classes)

    found = classification_metrics(scores, targets)

    ranks = np.array(slow_ranks(scores, targets))
    assert found["acc1"] == pytest.approx((ranks == 1).mean(), abs=1e-12)
    assert found["acc5"] == pytest.approx((ranks <= 5).mean() if classes >= 5 else math.nan, abs=1e-12, nan_ok=True)
    assert found["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(targets, scores.argmax(1)), abs=1e-12)
    matrix = confusion_matrix(predictions(scores, targets), targets, classes)
    assert matrix.dtype == np.int64
    assert np.array_equal(matrix, sklearn_confusion_matrix(targets, scores.argmax(1)))


@pytest.mark.parametrize("seed", range(4))
def test_ties_and_scores_that_are_no_numbers_count_against_the_model(seed: int) -> None:
    scores, targets = random_problem(seed)
    scores = scores.round()  # most rows have ties now
    scores[::9, 2] = np.nan
    scores[5] = np.nan

    found, predicted = per_query(scores, targets), predictions(scores, targets)

    ranks = np.array(slow_ranks(scores, targets))
    assert found["acc1"].tolist() == (ranks <= 1).tolist()
    assert found["acc5"].tolist() == (ranks <= 5).tolist()
    assert found["acc1"].dtype == np.float64
    assert (predicted == targets).tolist() == (ranks == 1).tolist()
    wrong = predicted != targets  # each was taken for a class that the right one is not above
    right = scores[np.arange(len(scores)), targets]
    assert not (scores[np.arange(len(scores)), predicted] < right)[wrong].any()


def test_a_model_that_scores_all_classes_alike_recognises_nothing() -> None:
    targets = np.arange(6)

    found = classification_metrics(np.ones((6, 6), dtype=np.float32), targets)

    assert found == {"acc1": 0, "acc5": 0, "mean_per_class_recall": 0}


def test_the_metrics_are_means_over_queries() -> None:
    scores, targets = random_problem(0)

    found, single = classification_metrics(scores, targets), per_query(scores, targets)

    assert {name: values.mean() for name, values in single.items()} == {name: found[name] for name in ("acc1", "acc5")}
    assert 0 < found["acc1"] < found["acc5"] < 1


def test_classes_without_pictures_are_left_out_of_the_mean_recall() -> None:
    scores = np.eye(6, dtype=np.float32)[[0, 0, 5, 1]]  # class 5 is right once, class 0 twice and wrong for class 1's: none
    targets = np.array([0, 0, 5, 0])

    found = classification_metrics(scores, targets)

    # class 0: 2 of 3, class 5: 1 of 1; class 1 was predicted but has no pictures, so it has no recall
    assert found["mean_per_class_recall"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_single_class_in_the_data_is_measured_like_any_other() -> None:
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]], dtype=np.float32)

    found = classification_metrics(scores, np.ones(4, dtype=np.int64))

    assert found["acc1"] == found["mean_per_class_recall"] == 0.75


def test_the_table_says_how_each_class_fared() -> None:
    # rows: right class; columns: taken for
    confusion = np.array([[4, 1, 3, 0], [0, 5, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]])

    assert class_table(confusion, ["cat", "dog", "emu", "fox"]) == [
        ClassFigures("cat", 8, 4 / 8, 4 / 4, "emu", 3),
        ClassFigures("dog", 5, 5 / 5, 5 / 8, None, 0),  # 1 cat and 2 foxes were taken for dogs
        ClassFigures("emu", 0, None, 0 / 3, None, 0),
        ClassFigures("fox", 2, 0 / 2, None, "dog", 2),
    ]


def test_classes_without_pictures_have_no_part_in_the_mean_over_classes() -> None:
    predicted, targets = np.array([0, 1, 2, 1, 1, 1]), np.array([0, 0, 0, 1, 3, 3])

    # class 0: 1 of 3, class 1: 1 of 1, class 3: 0 of 2; class 2 was predicted and has none
    assert mean_per_class_recall(predicted, targets) == pytest.approx((1 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 3, -1], "2 class numbers are not among the 3 classes.* the first is 3, of picture 1"),
        ([0, 1], "3 pictures and 2 class numbers"),
    ],
)
def test_targets_that_are_not_a_class_for_each_picture_are_refused(targets: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_metrics(np.eye(3, dtype=np.float32), np.array(targets))


def test_no_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="0 pictures"):
        classification_metrics(np.empty((0, 3), dtype=np.float32), np.empty(0, dtype=np.int64))
