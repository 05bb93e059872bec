import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from attune.errors import DataError
from attune.evaluation import linear_probe as module
from attune.evaluation.classification import classification_metrics
from attune.evaluation.linear_probe import Features, LinearProbe, linear_probe


def blobs(seed: int, pictures: int, classes: int = 4, noise: int = 4) -> Features:
    """Classes around points in four dimensions, and features that say nothing, on other scales."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, pictures)
    centres = np.random.default_rng(99).standard_normal((classes, 4))
    told = 1.2 * centres[targets] + rng.standard_normal((pictures, 4))
    useless = rng.standard_normal((pictures, noise)) * np.geomspace(1e-3, 1e3, noise) + 5
    return Features(np.concatenate([told, useless], axis=1).astype(np.float32), targets)


def together(*parts: Features) -> Features:
    return Features(np.concatenate([part.vectors for part in parts]), np.concatenate([part.targets for part in parts]))


def standardised(part: Features, train: Features) -> np.ndarray:
    exact = train.vectors.astype(np.float64)
    return (part.vectors - exact.mean(axis=0)) / exact.std(axis=0)


def objective(x: np.ndarray, targets: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    logits = x @ weight.T + bias
    top = logits.max(axis=1)
    loss = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(x)), targets]
    return float(loss.sum() + strength / 2 * np.square(weight).sum())


@pytest.mark.parametrize("strength", [1e3, 1.0, 1e-2])
def test_the_probe_equals_scikit_learns(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRENGTHS", np.full(97, strength))  # whichever is chosen is this one
    train, validation, test = blobs(0, 300), blobs(1, 100), blobs(2, 200)
    both = together(train, validation)

    probe = linear_probe(train, validation, 4)

    x = standardised(both, train)
    peer = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000).fit(x, both.targets)
    scale = train.vectors.astype(np.float64).std(axis=0)
    weight, bias = probe.weight * scale, probe.bias + probe.weight @ train.vectors.astype(np.float64).mean(axis=0)
    ours = objective(x, both.targets, weight, bias, strength)
    assert ours == pytest.approx(objective(x, both.targets, peer.coef_, peer.intercept_, strength), rel=1e-6)
    assert probe.scores(test.vectors).argmax(axis=1).tolist() == peer.predict(standardised(test, train)).tolist()


def test_where_most_features_say_nothing_a_strength_between_the_extremes_is_chosen() -> None:
    train, validation, test = blobs(0, 60, noise=60), blobs(1, 300, noise=60), blobs(2, 500, noise=60)

    probe = linear_probe(train, validation, 4)

    assert 1 < probe.strength < 1e4
    assert probe.tried[probe.strength] == max(probe.tried.values())
    assert probe.tried[probe.strength] > probe.tried[min(probe.tried)] + 0.02  # all but free weights learn the noise
    assert probe.tried[probe.strength] > probe.tried[max(probe.tried)] + 0.02  # the strongest learns next to nothing
    assert classification_metrics(probe.scores(test.vectors), test.targets)["acc1"] > 0.5


def test_strengths_are_sought_from_coarse_to_fine() -> None:
    probe = linear_probe(blobs(0, 60), blobs(1, 200), 4)

    tried = np.log10(sorted(probe.tried))
    assert {-6, -4, -2, 0, 2, 4, 6} <= set(tried.round(6))
    place = int(np.searchsorted(tried, np.log10(probe.strength)))
    steps = np.diff(tried[max(place - 1, 0) : place + 2])
    assert steps == pytest.approx(np.full(len(steps), 1 / 8))  # its neighbours were tried too


def test_of_equally_good_strengths_the_strongest_is_taken() -> None:
    clear = Features(np.array([[1, 0], [0, 1]] * 20, dtype=np.float32), np.array([0, 1] * 20))

    probe = linear_probe(clear, clear, 2)

    assert set(probe.tried.values()) == {1.0}
    assert probe.strength == max(probe.tried) == 1e6


def test_features_that_are_constant_but_for_rounding_change_nothing() -> None:
    def widened(part: Features) -> Features:
        rng = np.random.default_rng(len(part.vectors))
        constant = np.tile(np.array([0, 0.1, -3e7], dtype=np.float32), (len(part.vectors), 1))
        rounded = (0.1 * (1 + rng.uniform(-2e-7, 2e-7, (len(part.vectors), 20)))).astype(np.float32)
        return Features(np.concatenate([part.vectors, constant, rounded], axis=1), part.targets)

    train, validation, test = blobs(0, 60), blobs(1, 80), blobs(2, 100)

    plain = linear_probe(train, validation, 4)
    found = linear_probe(widened(train), widened(validation), 4)

    assert found.strength == plain.strength
    assert found.scores(widened(test).vectors) == pytest.approx(
        plain.scores(test.vectors), abs=0.02
    )  # LBFGS's own tolerance


def test_the_same_data_give_the_same_probe() -> None:
    first, second = (linear_probe(blobs(0, 80), blobs(1, 80), 4) for _ in range(2))

    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)
    assert first.tried == second.tried


def test_scores_are_weight_and_bias_applied_to_features_as_they_are() -> None:
    probe = LinearProbe(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0.5, 0.0]), 1.0, {})

    # 1 * 3 + 2 * 4 + 0.5 = 11.5; 0 * 3 - 1 * 4 = -4
    assert probe.scores(np.array([[3, 4]], dtype=np.float32)).tolist() == [[11.5, -4]]


def test_classes_without_training_pictures_are_never_found() -> None:
    train, validation = blobs(0, 80), blobs(1, 80)

    scores = linear_probe(train, validation, 6).scores(validation.vectors)

    assert scores.shape == (80, 6)
    assert scores.argmax(axis=1).max() < 4


@pytest.mark.parametrize("broken", ["train", "validation"])
def test_features_that_are_no_numbers_are_refused(broken: str) -> None:
    parts = {"train": blobs(0, 30), "validation": blobs(1, 30)}
    parts[broken].vectors[3, 1] = np.nan

    with pytest.raises(DataError, match="not finite numbers"):
        linear_probe(parts["train"], parts["validation"], 4)


def test_a_part_without_pictures_or_with_other_classes_is_refused() -> None:
    train = blobs(0, 30)

    with pytest.raises(DataError, match="0 pictures"):
        linear_probe(train, Features(train.vectors[:0], train.targets[:0]), 4)
    with pytest.raises(DataError, match="not among the 3 classes"):
        linear_probe(train, train, 3)
