import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attune.errors import DataError
from attune.models.clip import Clip, load_clip
from attune.training.pairs_check import PairsCheck, shuffled_pairs_check


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pairs(pictures: int, signal: float, captions: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures and texts as random unit vectors; each text is `signal` times its picture, and noise of length about 1."""
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(pictures, 32)))
    own = np.repeat(np.arange(pictures), captions)
    return images, unit(signal * images[own] + rng.normal(size=(len(own), 32)) / math.sqrt(32)), own


def look(images: np.ndarray, texts: np.ndarray, own: np.ndarray, **options: Any) -> PairsCheck:
    return shuffled_pairs_check(images, texts, own, np.random.default_rng(0), **options)


@pytest.mark.parametrize(("pictures", "captions"), [(60, 1), (60, 5), (1200, 2)])
def test_real_pairs_beat_shuffled_ones(pictures: int, captions: int) -> None:
    found = look(*pairs(pictures, 1.0, captions))
    assert found.pictures == min(pictures, 1000)
    assert found.p_value == pytest.approx(0.001)
    assert found.real_similarity > 0.5 > abs(found.shuffled_similarity) * 5
    assert found.real_recall > 0.8
    assert found.chance_recall == pytest.approx(5 / found.pictures)
    assert found.shuffled_recall < 0.3
    assert found.warning == ""


def test_figures_of_two_pictures_worked_out_by_hand() -> None:
    # Texts: picture 0 has (1, 0) and (0.6, 0.8), picture 1 has (0, 1). Means of own texts: (0.8, 0.4) and (0, 1).
    # Real: (0.8 + 1) / 2. The one derangement: picture 0 with (0, 1) is 0, picture 1 with (0.8, 0.4) is 0.4.
    images = np.eye(2, dtype=np.float32)
    texts = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    found = look(images, texts, np.array([0, 0, 1]), recall=1)
    assert found.real_similarity == pytest.approx(0.9)
    assert found.shuffled_similarity == pytest.approx(0.2)
    assert found.real_recall == pytest.approx(2 / 3)  # the second text is nearer to picture 1
    assert found.shuffled_recall == pytest.approx(1 / 3)
    assert found.chance_recall == 0.5
    assert found.warning == ""


@pytest.mark.parametrize("captions", [1, 5])
def test_captions_rotated_by_one_are_refused(captions: int) -> None:
    images, texts, own = pairs(200, 1.0, captions)
    with pytest.raises(DataError, match=r"no better than shuffled.*recall@5 .*shifted by a row"):
        look(images, texts, (own + 1) % 200)


@pytest.fixture(scope="module")
def starter() -> Clip:
    return load_clip("starter")


@pytest.fixture(scope="module")
def shapes(starter: Clip, make_examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of 96 pictures of shapes, and of a caption of each, by `starter`."""
    examples = make_examples(96, captions=1)
    pictures = [np.asarray(starter.resize(Image.open(io.BytesIO(one.image)))).transpose(2, 0, 1) for one in examples]
    return starter.encode_images(np.stack(pictures)), starter.encode_texts([one.captions[0] for one in examples])


def test_a_real_model_tells_captions_from_the_next_rows(shapes: tuple[np.ndarray, np.ndarray]) -> None:
    images, texts = shapes
    assert look(images, texts, np.arange(96)).p_value == pytest.approx(0.001)
    with pytest.raises(DataError, match="shifted by a row"):
        look(images, np.roll(texts, 1, axis=0), np.arange(96))


def test_a_few_pictures_are_only_warned_of() -> None:
    images, texts, own = pairs(49, 0.0, seed=3)
    found = look(images, texts, own)
    assert found.p_value > 0.05
    assert "no better than shuffled" in found.warning
    assert "49 pictures are too few" in found.warning
    images, texts, own = pairs(50, 0.0, seed=3)
    with pytest.raises(DataError):
        look(images, texts, own)


def test_of_a_model_of_random_weights_nothing_is_asked() -> None:
    images, texts, own = pairs(100, 0.0, seed=1)
    assert look(images, texts, own, scratch=True).warning == ""
    with pytest.raises(DataError):
        look(images, texts, own)


def test_a_model_that_finds_everything_alike_is_not_the_fault_of_the_pairs() -> None:
    images, texts, own = pairs(100, 0.0, seed=1)
    alike = unit(texts + 5 * texts[:1])
    assert "all texts alike" in look(images, alike, own).warning
    # Equal embeddings tie: no shuffle is better or worse, and a tie is no win.
    ones = unit(np.ones((100, 32)))
    found = look(ones, ones, own)
    assert found.p_value == 1
    assert "all pictures and all texts alike" in found.warning


def test_a_model_of_one_subject_is_only_warned_of() -> None:
    images, texts, own = pairs(100, 0.0, seed=1)
    assert "may know nothing of this subject" in look(images, texts, own, narrow=True).warning


def test_random_pairs_pass_no_more_often_than_the_test_says() -> None:
    values = [look(*pairs(60, 0.0, seed=seed), scratch=True).p_value for seed in range(50)]
    assert sum(value <= 0.05 for value in values) <= 7  # 2.5 expected; more than 7 in 50 has a chance of 0.3 %
    assert 0.3 < np.mean(values) < 0.7


def test_weak_signs_are_enough() -> None:
    # Of each text, hardly more than a tenth points to its picture: recall is near chance, similarity is not.
    found = look(*pairs(1000, 0.12))
    assert found.real_recall < 0.05
    assert found.p_value <= 0.01


def test_a_check_says_its_figures_in_one_line() -> None:
    line = look(*pairs(60, 1.0)).figures
    assert "\n" not in line
    assert "on 60 pictures, p = 0.001" in line
