import numpy as np
import pytest

from attune.evaluation.ranking import ranks
from attune.metrics import DIRECTIONS, KS, mean_recall, query_values, retrieval_metrics
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


def test_a_query_counts_what_its_rank_is_worth() -> None:
    found = query_values(np.array([1, 4, 20]))

    assert {name: value.tolist() for name, value in found.items()} == {
        "recall@1": [1, 0, 0],
        "recall@5": [1, 1, 0],
        "recall@10": [1, 1, 0],
        "mrr": [1, 0.25, 0.05],
    }
    assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}


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
