import math

import numpy as np
import pytest

from attune.evaluation.ranking import ranks
from attune.metrics import DIRECTIONS, KS, difference_interval, mean_recall, retrieval_metrics
from benchmarks.retrieval import clip_benchmark


def random_problem(seed: int, images: int = 60, dim: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-length embeddings of pictures with 1 to 5 captions each, the captions near their picture but not always."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), rng.integers(1, 6, images))
    pictures = rng.standard_normal((images, dim))
    texts = pictures[owner] + 1.2 * rng.standard_normal((len(owner), dim))
    unit = [(array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32) for array in (pictures, texts)]
    return unit[0], unit[1], owner


def test_metrics_of_ranks_done_by_hand() -> None:
    found = retrieval_metrics({"text_to_image": np.array([1, 3, 7]), "image_to_text": np.array([2, 11])})

    assert found == pytest.approx(
        {
            "text_to_image_recall@1": 1 / 3,
            "text_to_image_recall@5": 2 / 3,
            "text_to_image_recall@10": 1.0,
            "text_to_image_mrr": (1 + 1 / 3 + 1 / 7) / 3,
            "text_to_image_median_rank": 3.0,
            "image_to_text_recall@1": 0.0,
            "image_to_text_recall@5": 0.5,
            "image_to_text_recall@10": 0.5,
            "image_to_text_mrr": (1 / 2 + 1 / 11) / 2,
            "image_to_text_median_rank": 6.5,
        }
    )
    # (1/3 + 2/3 + 1 + 0 + 0.5 + 0.5) / 6 = 0.5
    assert mean_recall(found) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", KS)
def test_recall_is_that_of_clip_benchmark(seed: int, k: int) -> None:
    images, texts, owner = random_problem(seed)
    theirs = clip_benchmark(images, texts, owner)

    ours = retrieval_metrics(ranks(images, texts, owner))

    for direction in DIRECTIONS:
        name = f"{direction}_recall@{k}"
        assert 0.02 < theirs[name] < 1  # neither everything nor nothing: a test that could fail
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6)


def paired(seed: int, images: int = 40) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Ranks before, somewhat better ranks after, and the pictures of the texts."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), rng.integers(1, 4, images))
    before = {"text_to_image": rng.integers(1, 20, len(owner)), "image_to_text": rng.integers(1, 20, images)}
    after = {key: np.maximum(1, rank - rng.integers(-3, 9, len(rank))) for key, rank in before.items()}
    return before, after, owner


def test_the_interval_is_that_of_a_slow_bootstrap_on_the_same_draws() -> None:
    before, after, owner = paired(0, images=12)
    low, high = difference_interval(before, after, owner, resamples=60, seed=3)

    rng = np.random.default_rng(3)
    differences: dict[str, list[float]] = {name: [] for name in low}
    for _ in range(60):
        drawn = np.repeat(np.arange(12), rng.multinomial(12, np.full(12, 1 / 12)))
        texts = [text for picture in drawn for text in np.flatnonzero(owner == picture)]
        rows = {"text_to_image": texts, "image_to_text": list(drawn)}
        scored = [
            retrieval_metrics({direction: found[direction][rows[direction]] for direction in DIRECTIONS})
            for found in (before, after)
        ]
        for name in differences:
            differences[name].append(scored[1][name] - scored[0][name])

    assert low == pytest.approx({name: np.percentile(values, 2.5) for name, values in differences.items()}, abs=1e-12)
    assert high == pytest.approx({name: np.percentile(values, 97.5) for name, values in differences.items()}, abs=1e-12)
    assert set(low) == {f"{direction}_{name}" for direction in DIRECTIONS for name in ("mrr", *(f"recall@{k}" for k in KS))}


def test_the_interval_holds_the_difference_and_has_width() -> None:
    before, after, owner = paired(1)

    low, high = difference_interval(before, after, owner)

    start, end = retrieval_metrics(before), retrieval_metrics(after)
    for name in low:
        assert low[name] < end[name] - start[name] < high[name]


def test_equal_ranks_give_an_interval_of_no_width() -> None:
    before, _, owner = paired(2)

    low, high = difference_interval(before, before, owner)

    assert set(low.values()) == set(high.values()) == {0.0}


def test_captions_of_one_picture_do_not_pass_for_independent_ones() -> None:
    """The share of 16 pictures whose 50 captions all turned from miss to hit is as unsure as 16 draws, not 800."""
    owner = np.repeat(np.arange(16), 50)
    turned = owner % 2 == 0
    ones = np.ones(16, dtype=int)
    before = {"text_to_image": np.full(800, 20), "image_to_text": ones}
    after = {"text_to_image": np.where(turned, 1, 20), "image_to_text": ones}

    low, high = difference_interval(before, after, owner)

    # Half of 16 draws, so a standard error of sqrt(0.25 / 16) = 0.125, and 95 % is about 2 x 1.96 x 0.125 = 0.49 wide;
    # over 800 independent captions it would be 0.07.
    width = high["text_to_image_recall@1"] - low["text_to_image_recall@1"]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 16), abs=0.08)
