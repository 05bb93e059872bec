import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from attune.data.pairs import Pairs
from attune.evaluation.correlation import correlation_section, correlations, similarities


def graded_pairs(scores: list[list[float]]) -> Pairs:
    names = [f"p{row}" for row in range(len(scores))]
    captions = [[f"{name} {place}" for place in range(len(own))] for name, own in zip(names, scores, strict=True)]
    return Pairs("", names, captions, names, scores=scores)


@pytest.mark.parametrize("levels", [3, 50])
def test_correlations_are_scipys_with_ties_and_without(levels: int) -> None:
    rng = np.random.default_rng(levels)
    similar = np.round(rng.normal(size=80), 1)
    scores = rng.integers(levels, size=80) + similar

    found = correlations(similar, scores)

    assert found["spearman"][0] == pytest.approx(stats.spearmanr(similar, scores).statistic)
    assert found["pearson"][0] == pytest.approx(stats.pearsonr(similar, scores).statistic)


def test_pairs_that_are_there_several_times_count_so_often() -> None:
    rng = np.random.default_rng(0)
    similar, scores = np.round(rng.normal(size=(2, 12)), 1)
    weights = rng.integers(4, size=(5, 12))

    found = correlations(similar, scores, weights.astype(np.float64))

    for row, times in enumerate(weights):
        one, other = similar.repeat(times), scores.repeat(times)
        assert found["spearman"][row] == pytest.approx(stats.spearmanr(one, other).statistic)
        assert found["pearson"][row] == pytest.approx(stats.pearsonr(one, other).statistic)


def test_the_example_of_the_documentation() -> None:
    found = correlations(np.array([0.1, 0.2, 0.9]), np.array([1.0, 2.0, 3.0]))

    assert found["spearman"][0] == pytest.approx(1)
    assert found["pearson"][0] == pytest.approx(0.918, abs=1e-3)


def test_what_is_the_same_everywhere_follows_nothing() -> None:
    found = correlations(np.full(4, 0.3), np.arange(4.0))

    assert (found["spearman"][0], found["pearson"][0]) == (0, 0)


def test_only_a_pictures_own_captions_are_compared() -> None:
    images, texts = np.eye(2, dtype=np.float32), np.array([[1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)

    similar, scores, owner = similarities(images, texts, graded_pairs([[0.9, 0.5], [0.1]]))

    assert similar == pytest.approx([1, 0.6, 0])
    assert scores.tolist() == [0.9, 0.5, 0.1]
    assert owner.tolist() == [0, 0, 1]


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    drawn = rng.normal(size=(rows, 4))
    found: np.ndarray = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return found


def test_a_models_own_interval_holds_its_correlation_and_equal_models_differ_by_nothing() -> None:
    rng = np.random.default_rng(1)
    pairs = graded_pairs(rng.random((60, 2)).tolist())
    model = unit(rng, 60), unit(rng, 120)

    alone = correlation_section("headline", "Title", None, model, pairs)
    same = correlation_section("headline", "Title", model, model, pairs)

    for row in alone.rows:
        assert row.before is None
        assert row.after is not None
        assert row.after_low is not None
        assert row.after_high is not None
        assert row.after_low < row.after < row.after_high
        assert row.after_high - row.after_low == pytest.approx(4 / np.sqrt(120), rel=0.3)  # of independent pairs
    assert [(row.metric, row.low, row.high) for row in same.rows] == [("spearman", 0, 0), ("pearson", 0, 0)]


def test_captions_of_one_picture_are_drawn_together() -> None:
    """Two pictures whose captions each say one thing five times: a draw has one of them, or both; never a part."""
    images = np.eye(2, dtype=np.float32)
    texts = np.repeat(np.array([[1, 0], [1, 0]], dtype=np.float32), 5, axis=0)
    pairs = graded_pairs([[1.0] * 5, [0.0] * 5])

    spearman = correlation_section("headline", "Title", None, (images, texts), pairs).rows[0]

    assert spearman.after == pytest.approx(1)
    assert (spearman.after_low, spearman.after_high) == (0, pytest.approx(1))  # of one picture alone there is none: 0


def test_one_picture_has_no_interval() -> None:
    images, texts = np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)

    spearman = correlation_section("headline", "Title", None, (images, texts), graded_pairs([[0.9, 0.1]])).rows[0]

    assert (spearman.after, spearman.after_low) == (pytest.approx(1), None)
