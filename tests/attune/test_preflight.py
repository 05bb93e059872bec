import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.data.batches import epoch_batches
from attune.errors import DataError
from attune.models.clip import Clip, load_clip
from attune.training.preflight import (
    PairsCheck,
    activation_bytes,
    check_feasible,
    estimate,
    shuffled_pairs_check,
    suspects,
)


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


# --- time and memory


def test_an_estimate_worked_out_by_hand() -> None:
    # Weights of 100 million, and of 40 million trained: gradients, two moments, an average. 4 bytes each:
    # 4 x (100 + 40 x 4) million = 1.04 GB, and 0.86 GB of activations.
    found = estimate(96, 1.9, 100_000_000, 40_000_000, activation_bytes=860_000_000, average=True)
    assert found.memory_bytes == 1_900_000_000
    assert found.seconds == pytest.approx(182.4)
    assert found.advice == ""
    assert found.describe() == "about 96 steps, 3 min, 1.9 GB"


@pytest.mark.parametrize(
    ("seconds", "parameters", "expected"),
    [(0.1, 5_000_000, "about 100 steps, 10 s, 80 MB"), (90.0, 428_000_000, "about 100 steps, 2.5 h, 6.8 GB")],
)
def test_durations_and_sizes_in_words(seconds: float, parameters: int, expected: str) -> None:
    assert estimate(100, seconds, parameters, parameters).describe() == expected


def test_an_estimate_says_what_to_change() -> None:
    found = estimate(12, 1.0, 500_000_000, 500_000_000, available_bytes=6_000_000_000)
    assert "more memory than the 6.0 GB there are: set a smaller micro_batch_size" in found.describe()
    assert "raise epochs" in found.advice
    assert estimate(100, 1.0, 100, 100, available_bytes=6_000_000_000).advice == ""


def test_bytes_kept_for_the_backward_pass() -> None:
    first, second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)
    inputs = torch.ones(4, 8)
    kept = activation_bytes(lambda: second(first(inputs).relu()).sum(), [*first.parameters(), *second.parameters()])
    # The inputs, 4 x 8 floats, and what relu gave, 4 x 16: kept by relu and by the second layer, counted once.
    assert kept == 4 * (4 * 8 + 4 * 16)


def test_twice_the_batch_keeps_twice_the_activations() -> None:
    clip = load_clip("starter")
    clip.model.train()
    size = clip.preprocess["size"]
    side = size if isinstance(size, int) else size[0]

    def kept(count: int) -> int:
        pixels = torch.zeros(count, 3, side, side)
        return activation_bytes(lambda: clip.model.encode_image(pixels).sum(), list(clip.model.parameters()))

    assert kept(4) == pytest.approx(2 * kept(2), rel=0.01)
    assert kept(2) > 2 * 3 * side * side * 4


# --- real and shuffled pairs


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


@pytest.mark.parametrize("captions", [1, 3])
def test_swapped_pairs_are_the_first_suspects(captions: int) -> None:
    images, texts, own = pairs(120, 1.5, captions)
    wrong = [4, 50, 77, 100]
    texts[wrong] = texts[np.roll(wrong, 1)]

    found = suspects(images, texts, own, 4)

    assert sorted(suspect.text for suspect in found) == wrong
    assert [suspect.image for suspect in found] == [own[suspect.text] for suspect in found]
    assert [suspect.margin for suspect in found] == sorted(suspect.margin for suspect in found)


def test_margins_equal_a_slow_reference() -> None:
    images, texts, own = pairs(7, 1.0, 2)
    for text, image, margin in suspects(images, texts, own, 99):
        with_pictures = np.mean([texts[text] @ picture for picture in images])
        with_texts = np.mean([images[image] @ other for other in texts])
        assert margin == pytest.approx(texts[text] @ images[image] - (with_pictures + with_texts) / 2, abs=1e-5)
    assert len(suspects(images, texts, own, 99)) == 14


def test_a_text_that_is_close_to_everything_is_judged_by_what_it_is_closer_to() -> None:
    # Text 1 has 1 / sqrt 3 = 0.577 with every picture, the other two 0.5 with their own and 0 with others. The means
    # with all texts are 0.577 / 3 = 0.192 for picture 1, (0.5 + 0.577) / 3 = 0.359 for picture 0.
    images = np.eye(3, 4, dtype=np.float32)
    texts = unit(np.array([[1, 0, 0, math.sqrt(3)], [1, 1, 1, 0], [0, 0, 1, -math.sqrt(3)]]))
    found = suspects(images, texts, np.arange(3), 2)
    assert (found[0].text, found[0].image) == (1, 1)
    assert found[0].margin == pytest.approx(0.57735 - (0.57735 + 0.19245) / 2, abs=1e-4)
    assert found[1].margin == pytest.approx(0.5 - (0.5 / 3 + 0.35912) / 2, abs=1e-4)


# --- data that cannot teach


def sizes(groups: list[str], batch_size: int) -> list[int]:
    return [len(batch) for batch in epoch_batches(groups, batch_size, np.random.default_rng(0))]


def test_data_that_can_teach_passes() -> None:
    groups = list("abcdefg")
    check_feasible(groups, [[f"text {group}"] for group in groups], sizes(groups, 4))


def test_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="4 training pictures are of 1 group.*Give different groups"):
        check_feasible(["a"] * 4, [["x"], ["y"], ["z"], ["w"]], sizes(["a"] * 4, 4))


def test_one_caption_for_all_is_refused() -> None:
    with pytest.raises(DataError, match="All 4 training pictures have the same caption, 'a photo'"):
        check_feasible(list("abcd"), [["a photo"]] * 4, sizes(list("abcd"), 4))


def test_a_batch_of_one_is_refused() -> None:
    # Three pictures in batches of at most two are a batch of two and a batch of one.
    with pytest.raises(DataError, match="3 training pictures of 3 groups make 2 batches.* smallest has 1 pair"):
        check_feasible(list("abc"), [["x"], ["y"], ["z"]], sizes(list("abc"), 2))
