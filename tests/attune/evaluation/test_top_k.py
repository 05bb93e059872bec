import numpy as np
import pytest
import torch

from attune.errors import DataError
from attune.evaluation import ranking
from attune.evaluation import top_k as top_k_module
from attune.evaluation.top_k import top_k
from tests.attune.evaluation.test_places import DEVICES, unit


def slow_top_k(queries: np.ndarray, answers: np.ndarray, k: int, exclude_self: bool = False) -> np.ndarray:
    """Rows of answers; scores that differ by rounding alone are made equal first."""
    scores = np.round(queries.astype(np.float64) @ answers.T.astype(np.float64), 13)
    if exclude_self:
        np.fill_diagonal(scores, -5)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def small_tiles(monkeypatch: pytest.MonkeyPatch, tile: int, widest: int = 11) -> None:
    monkeypatch.setattr(top_k_module, "TILE", tile)
    monkeypatch.setattr(ranking, "WIDEST", widest)


def test_the_best_three_of_four_scores_done_by_hand() -> None:
    answers = np.array([[0, 1], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6]], dtype=np.float32)

    scores, indices = top_k(np.array([[1, 0]], dtype=np.float32), answers, 3)

    assert indices.tolist() == [[1, 3, 2]]  # scores 0, 0.8, 0.6, 0.8: of equals the lower row first
    assert scores.tolist() == np.float32([[0.8, 0.8, 0.6]]).tolist()
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 4, 30, 69])
@pytest.mark.parametrize("tile", [1, 60, 700, 2_000_000])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_the_best_equal_those_of_a_full_sort(
    exclude_self: bool, tile: int, k: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, tile)
    rng = np.random.default_rng(tile + k)
    items = unit(rng.standard_normal((70, 5)))
    items[rng.integers(0, 70, 25)] = items[rng.integers(0, 70, 25)]

    scores, indices = top_k(items, items, k, exclude_self, device)

    assert indices.tolist() == slow_top_k(items, items, k, exclude_self).tolist()
    assert np.allclose(scores, (items[:, None] * items[indices]).sum(-1), atol=1e-6)


@pytest.mark.parametrize("few", [0, 1000])
def test_scores_that_float32_cannot_tell_apart_come_in_their_true_order(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, 300, 40)
    monkeypatch.setattr(ranking, "FEW", few)
    rng = np.random.default_rng(0)
    answers = unit(rng.standard_normal(64) + 1e-7 * rng.standard_normal((90, 64)))
    queries = unit(rng.standard_normal((20, 64)))

    _, indices = top_k(queries, answers, 7)

    assert indices.tolist() == slow_top_k(queries, answers, 7).tolist()
    by_float32 = torch.topk(torch.from_numpy(queries) @ torch.from_numpy(answers).T, 7).indices
    assert indices.tolist() != by_float32.tolist()


@pytest.mark.parametrize("tile", [60, 2_000_000])
def test_a_model_that_embeds_everything_alike_gives_the_first_rows(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tile)
    one = np.full((50, 33), 33**-0.5, dtype=np.float32)

    assert top_k(one, one, 12)[1].tolist() == [list(range(12))] * 50


@pytest.mark.parametrize("tile", [4, 2_000_000])
def test_scores_that_are_no_numbers_come_last(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, tile, 2)
    answers = np.eye(4, dtype=np.float32)
    answers[1] = np.nan
    queries = np.array([[0, 0, 1, 0], [np.nan] * 4], dtype=np.float32)

    scores, indices = top_k(queries, answers, 4)

    assert indices.tolist() == [[2, 0, 3, 1], [0, 1, 2, 3]]
    assert np.array_equal(scores, np.array([[1, 0, 0, np.nan], [np.nan] * 4]), equal_nan=True)


@pytest.mark.parametrize(("k", "exclude_self", "gallery"), [(4, False, 3), (3, True, 2), (0, False, 3)])
def test_a_k_that_the_answers_do_not_allow_is_refused(k: int, exclude_self: bool, gallery: int) -> None:
    one = np.eye(3, dtype=np.float32)

    with pytest.raises(DataError, match=rf"k = {k}, but each query has {gallery} answers .* Use a k from 1 to {gallery}"):
        top_k(one, one, k, exclude_self)


def test_leaving_out_oneself_needs_the_same_items() -> None:
    one = np.eye(3, dtype=np.float32)
    with pytest.raises(DataError, match="2 queries and 3 answers"):
        top_k(one[:2], one, 1, exclude_self=True)
