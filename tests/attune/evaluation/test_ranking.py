import numpy as np
import pytest

from attune.errors import EvaluationError
from attune.evaluation import ranking
from attune.evaluation.ranking import ranks
from attune.metrics import DIRECTIONS
from tests.attune.test_metrics import random_problem


def slow_ranks(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, list[int]]:
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    by_text, by_image = [], []
    for text, picture in enumerate(owner):
        wrong = [scores[text, other] for other in range(len(images)) if other != picture]
        by_text.append(1 + sum(score >= scores[text, picture] for score in wrong))
    for picture in range(len(images)):
        best = max(scores[text, picture] for text in np.flatnonzero(owner == picture))
        by_image.append(1 + sum(scores[text, picture] >= best for text in np.flatnonzero(owner != picture)))
    return {"text_to_image": by_text, "image_to_text": by_image}


def test_ranks_of_a_problem_done_by_hand() -> None:
    images = np.array([[1, 0], [0, 1]], dtype=np.float32)
    texts = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], dtype=np.float32)
    owner = np.array([0, 0, 1])

    found = ranks(images, texts, owner)

    # scores, a row a text:   picture 0   picture 1
    #   text 0 (of 0)            1.0         0.0      -> its picture is first: 1
    #   text 1 (of 0)            0.6         0.8      -> picture 1 is above:   2
    #   text 2 (of 1)            0.8         0.6      -> picture 0 is above:   2
    # picture 0: its best text has 1.0, text 2 has 0.8 -> 1; picture 1: its text has 0.6, text 1 has 0.8 -> 2
    assert found["text_to_image"].tolist() == [1, 2, 2]
    assert found["image_to_text"].tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tile", [1, 50, 2000, 4_000_000])
def test_ranks_equal_a_slow_count(seed: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "TILE", tile)
    monkeypatch.setattr(ranking, "WIDEST", 11)
    images, texts, owner = random_problem(seed, images=17)

    found = ranks(images, texts, owner)

    assert {direction: found[direction].tolist() for direction in DIRECTIONS} == slow_ranks(images, texts, owner)


@pytest.mark.parametrize("tile", [40, 4_000_000])
def test_scores_that_float32_cannot_tell_apart_are_told_apart(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "TILE", tile)
    # Pictures so near each other that their scores differ by 1e-9 and less; the exact order is that of float64.
    rng = np.random.default_rng(0)
    images = np.tile(rng.standard_normal(64), (90, 1)) + 1e-7 * rng.standard_normal((90, 64))
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    texts = rng.standard_normal((90, 64))
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    own = scores.diagonal()

    found = ranks(images, texts, np.arange(90))

    by_text = (scores >= own[:, None] - 1e-12).sum(axis=1)
    assert len(set(by_text)) > 20  # float32 would find most of them equal
    assert found["text_to_image"].tolist() == by_text.tolist()
    assert found["image_to_text"].tolist() == (scores >= own - 1e-12).sum(axis=0).tolist()


def test_ranks_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts, owner = random_problem(9, images=120, dim=5)
    images[7] = images[3]
    texts[:40:3] = texts[1]
    whole = ranks(images, texts, owner)

    monkeypatch.setattr(ranking, "TILE", 333)
    monkeypatch.setattr(ranking, "WIDEST", 29)
    monkeypatch.setattr(ranking, "FEW", 2)
    cut = ranks(images, texts, owner)

    for direction in DIRECTIONS:
        assert np.array_equal(cut[direction], whole[direction])


@pytest.mark.parametrize("dim", [512, 640, 768, 1152, 3072])
def test_vectors_whose_products_round_badly_are_as_equal_as_others(dim: int) -> None:
    one = np.full((40, dim), dim**-0.5, dtype=np.float32)

    found = ranks(one, one, np.arange(40))

    assert {direction: set(found[direction].tolist()) for direction in DIRECTIONS} == {key: {40} for key in DIRECTIONS}


def test_one_picture_that_gives_no_numbers_counts_against_all_others() -> None:
    images = np.eye(3, dtype=np.float32)
    broken = images.copy()
    broken[1] = np.nan

    found = ranks(broken, images, np.arange(3))

    assert found["text_to_image"].tolist() == [2, 3, 2]
    assert found["image_to_text"].tolist() == [1, 3, 1]


@pytest.mark.parametrize("images", [5, 16, 37, 300])
def test_a_model_that_embeds_everything_alike_scores_nothing(images: int) -> None:
    one = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    one /= np.linalg.norm(one)
    owner = np.repeat(np.arange(images), 2)

    found = ranks(np.tile(one, (images, 1)), np.tile(one, (2 * images, 1)), owner)

    assert found["text_to_image"].tolist() == [images] * 2 * images
    assert found["image_to_text"].tolist() == [2 * images - 1] * images  # all texts but its own two, and one


def test_two_pictures_that_are_embedded_alike_count_against_each_other() -> None:
    images = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)

    found = ranks(images, images, np.arange(3))

    assert found["text_to_image"].tolist() == [2, 2, 1]
    assert found["image_to_text"].tolist() == [2, 2, 1]


def test_a_model_whose_embeddings_are_no_numbers_is_last_everywhere() -> None:
    broken = np.full((6, 4), np.nan, dtype=np.float32)

    found = ranks(broken, broken, np.arange(6))

    assert found["text_to_image"].tolist() == [6] * 6
    assert found["image_to_text"].tolist() == [6] * 6


UNIT = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ([0, 1, 5], r"1 of 3 texts are of no picture; the first, text 2, is of row 5\. Pictures have the rows 0 to 2"),
        ([-1, 1, 2], "the first, text 0, is of row -1"),
        ([0, 1, 1], r"1 of 3 pictures have no text; the first is row 2\. Leave them out"),
        ([0, 1], r"row for each of the 3 texts, but it is int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], r"but it is float64 of shape \(3,\)"),
    ],
    ids="above below without-text too-few no-integers".split(),
)
def test_texts_whose_pictures_are_not_there_are_refused(owner: list[float], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        ranks(UNIT, UNIT, np.asarray(owner))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64])
def test_rows_of_pictures_may_be_whole_numbers_of_any_kind(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "WIDEST", 2)

    assert ranks(UNIT, UNIT, np.arange(3, dtype=kind))["text_to_image"].tolist() == [1, 1, 1]
