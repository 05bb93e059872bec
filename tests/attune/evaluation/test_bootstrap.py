import math
from itertools import product

import numpy as np
import pytest

from attune.errors import EvaluationError
from attune.evaluation import bootstrap
from attune.evaluation.bootstrap import Difference, interval, paired_difference
from attune.metrics import query_values


def clustered(seed: int, clusters: int, metrics: int, shared: float = 1.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values with a mean of 0, of 1 to 5 queries a cluster that have a part in common, and the cluster of each."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(clusters), rng.integers(1, 6, clusters))
    values = {
        f"metric {number}": shared * rng.standard_normal(clusters)[owner] + 0.5 * rng.standard_normal(len(owner))
        for number in range(metrics)
    }
    return values, owner


def nothing(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(value) for name, value in values.items()}


def with_gaps(values: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.where(rng.random(len(value)) < 0.2, np.nan, value) for name, value in values.items()}


def slow_interval(value: np.ndarray, owner: np.ndarray, resamples: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    numbers = sorted(set(owner.tolist()))
    means = []
    for _ in range(resamples):
        drawn = [
            value[row]
            for draw in rng.integers(len(numbers), size=len(numbers))
            for row in np.flatnonzero(owner == numbers[draw])
        ]
        known = [one for one in drawn if not math.isnan(one)]
        if known:
            means.append(sum(known) / len(known))
    return np.percentile(means, [2.5, 97.5]).tolist()


def slow_p_value(gain: np.ndarray, owner: np.ndarray, signs: np.ndarray) -> float:
    """Of the sets of signs given, one for each cluster in ascending order, the share that gets as far as the real ones."""

    def mean(sign_of: dict[int, float]) -> float:
        known = [sign_of[cluster] * one for cluster, one in zip(owner.tolist(), gain, strict=True) if not math.isnan(one)]
        return abs(sum(known) / len(known))

    numbers = sorted(set(owner.tolist()))
    real = mean(dict.fromkeys(numbers, 1.0))
    return float(np.mean([mean(dict(zip(numbers, chosen, strict=True))) >= real - 1e-9 for chosen in signs]))


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_that_of_a_slow_bootstrap_on_the_same_draws(seed: int) -> None:
    values, owner = clustered(seed, clusters=12, metrics=3)
    values = with_gaps(values, seed)

    found = interval(values, owner, resamples=60, seed=seed)

    for name, value in values.items():
        assert found[name] == pytest.approx(slow_interval(value, owner, 60, seed), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_difference_is_that_of_slow_resampling_with_the_same_draws_and_signs(seed: int) -> None:
    before, owner = clustered(seed, clusters=12, metrics=3)
    after = {name: value + 0.3 for name, value in with_gaps(clustered(seed, 12, 3, shared=2)[0], seed).items()}

    found = paired_difference(before, after, owner, resamples=60, seed=seed)

    signs = 2.0 * np.random.default_rng(seed).integers(2, size=(60, 12)) - 1
    for name in before:
        gain = after[name] - before[name]
        assert found[name][:2] == pytest.approx(slow_interval(gain, owner, 60, seed), abs=1e-12)
        assert found[name].p_value == pytest.approx((1 + 60 * slow_p_value(gain, owner, signs)) / 61)


@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0])
def test_the_p_value_comes_close_to_that_of_all_signs_there_are(effect: float) -> None:
    values, owner = clustered(7, clusters=8, metrics=1)
    gain = values["metric 0"] + effect
    exact = slow_p_value(gain, owner, np.asarray(list(product([-1.0, 1.0], repeat=8))))

    found = paired_difference(nothing(values), {"metric 0": gain}, owner, resamples=20_000)["metric 0"]

    # The standard error of a share of 20,000 is at most 0.0035.
    assert found.p_value == pytest.approx(exact, abs=0.015)


def test_a_p_value_done_by_hand() -> None:
    """Of 32 ways to choose the signs of 5 equal gains, all plus and all minus get as far from 0: 2/32 = 0.0625."""
    found = paired_difference({"x": np.zeros(5)}, {"x": np.full(5, 0.1)}, np.arange(5), resamples=20_000)["x"]

    assert found[:2] == pytest.approx((0.1, 0.1))
    assert found.p_value == pytest.approx(2 / 32, abs=0.008)


def test_an_interval_done_by_hand() -> None:
    """Two pictures, 1 and 0: a quarter of the draws has the mean 1, a quarter 0, far more than 2.5 % at either end."""
    assert interval({"x": np.array([1.0, 1.0, 1.0, 0.0])}, np.array([9, 9, 9, 4]))["x"] == (0, 1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 400 sets of values with mean 0; 95 % within three standard errors of 1.1 % (sqrt(0.95 x 0.05 / 400)), less
    the 1 % that percentile intervals lack with 60 clusters. One that takes captions for independent does not pass."""
    values, owner = clustered(1, clusters=60, metrics=400)

    def coverage(found: dict[str, tuple[float, float]]) -> float:
        return float(np.mean([low <= 0 <= high for low, high in found.values()]))

    assert 0.91 <= coverage(interval(values, owner)) <= 0.985
    assert coverage(interval(values, np.arange(len(owner)))) < 0.85


def test_intervals_of_ten_clusters_hold_the_truth_nine_times_in_ten() -> None:
    covered = []
    for seed in range(10):
        values, owner = clustered(seed, clusters=10, metrics=100)
        covered += [low <= 0 <= high for low, high in interval(values, owner, 500).values()]

    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("clusters", [10, 60])
def test_p_values_are_uniform_where_there_is_no_difference(clusters: int) -> None:
    p_values = []
    for seed in range(10):
        values, owner = clustered(seed, clusters, metrics=100)
        p_values += [found.p_value for found in paired_difference(nothing(values), values, owner, 500, seed).values()]

    for share in (0.05, 0.2, 0.5, 0.8):
        # Three standard errors of a share of 1,000, and a bit: signs are the same for a hundred at a time.
        tolerance = 4 * math.sqrt(share * (1 - share) / 1000)
        assert np.mean(np.asarray(p_values) <= share) == pytest.approx(share, abs=tolerance)


def test_a_large_effect_has_the_smallest_p_value_there_is_and_never_0() -> None:
    values, owner = clustered(3, clusters=60, metrics=1)

    found = paired_difference(nothing(values), {"metric 0": values["metric 0"] + 3}, owner, resamples=999)["metric 0"]

    assert found.p_value == 1 / 1000
    assert 2 < found.low < 3 < found.high < 4


def test_both_directions_of_a_difference_mirror_each_other() -> None:
    values, owner = clustered(4, clusters=30, metrics=2)
    zero = nothing(values)

    forth, back = paired_difference(zero, values, owner), paired_difference(values, zero, owner)

    for name in values:
        assert (back[name].low, back[name].high) == pytest.approx((-forth[name].high, -forth[name].low), abs=1e-12)
        assert back[name].p_value == forth[name].p_value


def test_equal_models_give_an_interval_of_no_width_and_a_p_value_of_1() -> None:
    values, owner = clustered(5, clusters=30, metrics=2)

    assert set(paired_difference(values, values, owner).values()) == {Difference(0, 0, 1)}


def test_captions_of_one_picture_do_not_pass_for_independent_ones() -> None:
    """The share of 16 pictures whose 50 captions all turned from miss to hit is as unsure as 16 draws, not 800."""
    owner = np.repeat(np.arange(16), 50)
    before = query_values(np.full(800, 20))
    after = query_values(np.where(owner % 2 == 0, 1, 20))

    found = paired_difference(before, after, owner)["recall@1"]

    # Half of 16 draws, so a standard error of sqrt(0.25 / 16) = 0.125, and 95 % is about 2 x 1.96 x 0.125 = 0.49 wide;
    # over 800 independent captions it would be 0.07.
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 16), abs=0.08)
    # 8 gains of 8 that are not 0: 2 of 2 ** 8 ways to choose their signs.
    assert found.p_value == pytest.approx(2 / 256, abs=0.006)


def test_one_picture_says_nothing_of_how_pictures_differ() -> None:
    found = paired_difference({"x": np.zeros(5)}, {"x": np.ones(5)}, np.zeros(5, dtype=np.int64))["x"]

    assert all(map(math.isnan, found))
    assert all(map(math.isnan, interval({"x": np.ones(5)}, np.zeros(5, dtype=np.int64))["x"]))


def test_a_metric_that_few_clusters_have_does_not_disturb_the_others() -> None:
    values, owner = clustered(6, clusters=30, metrics=1)
    rare = {
        "of none": np.full(len(owner), np.nan),
        "of one": np.where(owner == 3, 1.0, np.nan),
        "of two": np.where(owner == 3, 1.0, np.where(owner == 4, 0.0, np.nan)),
    }

    found = interval({**rare, **values}, owner, 500)

    assert found["metric 0"] == pytest.approx(interval(values, owner, 500)["metric 0"], abs=1e-12)
    assert [math.isnan(found[name][0]) for name in rare] == [True, True, False]
    assert found["of two"] == (0, 1)


def test_no_queries_at_all_give_nothing() -> None:
    none = np.zeros(0)
    assert all(map(math.isnan, paired_difference({"x": none}, {"x": none}, none.astype(np.int64))["x"]))


def test_it_is_the_same_for_a_seed_and_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values, owner = clustered(8, clusters=30, metrics=2)
    whole = paired_difference(nothing(values), values, owner, 200, seed=1)
    other = paired_difference(nothing(values), values, owner, 200, seed=2)

    monkeypatch.setattr(bootstrap, "BLOCK", 100)  # three resamples, and an odd number of draws

    pieces = paired_difference(nothing(values), values, owner, 200, seed=1)
    for name in values:
        assert pieces[name] == pytest.approx(whole[name], abs=1e-12)
        assert other[name].low != whole[name].low


def test_the_names_of_clusters_do_not_matter() -> None:
    values, owner = clustered(9, clusters=30, metrics=1)

    assert interval(values, owner * 1_000_003 - 7) == interval(values, owner)


def test_what_gives_no_interval_is_refused() -> None:
    three, four = np.zeros(3), np.zeros(4)

    for resamples in (0, -1):
        with pytest.raises(EvaluationError, match=f"resamples = {resamples}: .* Use 1 or more"):
            paired_difference({"x": three}, {"x": three}, np.arange(3), resamples)
        with pytest.raises(EvaluationError, match=f"resamples = {resamples}"):
            interval({"x": three}, np.arange(3), resamples)
    for before, after in ((three, four), (four, three), (np.zeros(1), three), (three, np.zeros(1))):
        with pytest.raises(
            EvaluationError, match=r"x has values of shape \([14],\), and clusters are of shape \(3,\)\. Give each"
        ):
            paired_difference({"x": before}, {"x": after}, np.arange(3))
    with pytest.raises(EvaluationError, match=r"x has values of shape \(3,\), and clusters are of shape \(4,\)"):
        interval({"x": three}, np.arange(4))
    with pytest.raises(EvaluationError, match="values of x, y before, and of x after"):
        paired_difference({"x": three, "y": three}, {"x": three}, np.arange(3))
