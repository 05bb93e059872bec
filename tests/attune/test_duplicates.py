import io
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from attune.data.captions import Captions, Sample
from attune.data.duplicates import Duplicates, caption_keys, mean_colours, near, picture_hashes, thumbnails
from attune.data.pairs import Pairs
from attune.data.words import plain
from tests.attune.test_captions import words_to_tokens


def photograph(seed: int, size: int = 64) -> np.ndarray:
    """Something with light and dark parts: uint8 (3, size, size)."""
    spots = np.random.default_rng(seed).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(spots).resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def disc(colour: tuple[int, int, int], size: int = 64) -> np.ndarray:
    """A disc on white: uint8 (3, size, size)."""
    y, x = np.mgrid[:size, :size] - size / 2
    inside = x**2 + y**2 < (size / 3) ** 2
    return np.where(inside, np.array(colour, dtype=np.uint8)[:, None, None], np.uint8(255))


def as_jpeg(pixels: np.ndarray, quality: int, size: int) -> np.ndarray:
    """The picture after it was scaled and stored as JPEG, back at its own size."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).resize((size, size)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).resize(pixels.shape[1:])).transpose(2, 0, 1)


def sample_of(captions: list[list[str]], rows: list[int], numbers: list[int]) -> Sample:
    owner_of = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    owners = [rows.index(int(owner_of[number])) for number in numbers]
    return Sample(torch.zeros(len(numbers), 1, dtype=torch.int64), np.array(owners), np.array(numbers))


def different_hashes(count: int) -> np.ndarray:
    """Hashes of which no two are near: random ones differ by 32 of 64 bits on average."""
    return np.random.default_rng(0).integers(1, 2**63, size=count, dtype=np.uint64)


def test_equal_captions_have_equal_keys() -> None:
    assert caption_keys([["A dog.", "one dog"], ["a dog"], ["ONE  DOG!", "?"]]).tolist() == [0, 1, 0, 1, 2]


def test_a_thumbnail_is_the_mean_of_equal_fields() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 3, 16, 27), dtype=np.uint8)

    small = thumbnails(pixels, chunk=2)

    expected = pixels.reshape(3, 3, 8, 2, 9, 3).mean((3, 5))  # fields of 2 x 3 pixels
    np.testing.assert_allclose(small, expected, rtol=1e-5)
    np.testing.assert_array_equal(thumbnails(small), small)


def test_fields_cut_pixels_where_sizes_do_not_divide() -> None:
    ramp = np.broadcast_to(np.arange(10, dtype=np.uint8), (1, 3, 12, 10))

    small = thumbnails(ramp)

    # 10 pixels in 9 fields of 10/9: the first holds pixel 0 and a ninth of pixel 1: (0 + 1/9) / (10/9) = 0.1
    np.testing.assert_allclose(small[0, 0, 0], [0.1, 1.2, 2.3, 3.4, 4.5, 5.6, 6.7, 7.8, 8.9], rtol=1e-5)


def test_a_hash_has_a_bit_for_each_step_to_a_brighter_field() -> None:
    grey = np.zeros((8, 9), dtype=np.uint8)
    grey[0] = range(0, 90, 10)  # 8 steps up
    grey[1] = range(90, 0, -10)  # 8 steps down
    grey[2, 4:] = 200  # one step up, the fourth
    pixels = np.broadcast_to(grey, (1, 3, 8, 9))

    (number,) = picture_hashes(pixels)

    assert np.array([number]).view(np.uint8).tolist() == [0b11111111, 0, 0b00010000, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_stored_again_is_near_and_another_is_not(seed: int) -> None:
    pixels = photograph(seed)
    others = [as_jpeg(pixels, 90, 64), as_jpeg(pixels, 75, 100), photograph(seed + 100), pixels[:, :, ::-1]]

    hashes = picture_hashes(np.stack([pixels, *others]))

    assert near(hashes[:1], hashes).tolist() == [[True, True, True, False, False]]


def test_near_counts_bits() -> None:
    hashes = np.array([0b1111_0000, 0b1111_0001, 0b1111_0011, 0b1111_0111], dtype=np.uint64)

    assert near(hashes[:1], hashes).tolist() == [[True, True, True, False]]
    assert near(hashes[:1], hashes, bits=0).tolist() == [[True, False, False, False]]
    assert near(hashes[:2], hashes, bits=1).tolist() == [[True, True, False, False], [True, True, True, False]]


def test_blank_pictures_are_not_all_one_picture() -> None:
    noise = np.random.default_rng(0).integers(-2, 3, size=(3, 64, 64))
    blank = [np.full((3, 64, 64), 255), np.full((3, 64, 64), 10), 128 + noise]

    hashes = picture_hashes(np.stack(blank).astype(np.uint8))

    assert hashes.tolist() == [0, 0, 0]
    assert not near(hashes, hashes).any()


def test_colour_tells_apart_what_is_equal_in_outline() -> None:
    pixels = np.stack([disc((200, 0, 0)), disc((0, 80, 200)), as_jpeg(disc((200, 0, 0)), 90, 64)])
    hashes, captions, groups = picture_hashes(pixels), [["red"], ["blue"], ["crimson"]], ["a", "b", "c"]
    sample = sample_of(captions, [0, 1, 2], [0, 1, 2])
    assert near(hashes, hashes).all()

    found = Duplicates(captions, hashes, groups, mean_colours(pixels)).ignored(np.arange(3), sample)

    assert found.tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_the_example_of_the_docstring() -> None:
    captions = [["a dog", "my dog"], ["A dog!"], ["Rex"]]
    hashes = np.array([2**40 - 1, 2**20 - 1, 2**21 - 1], dtype=np.uint64)  # 1 and 2 differ by one bit

    found = Duplicates(captions, hashes, ["a", "b", "c"]).ignored(np.arange(3), sample_of(captions, [0, 1, 2], [0, 1, 2, 3]))

    assert found.int().tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]]


def test_a_caption_counts_that_was_not_drawn() -> None:
    captions = [["a dog", "Rex"], ["a dog"]]
    duplicates = Duplicates(captions, different_hashes(2), ["a", "b"])

    found = duplicates.ignored(np.array([0, 1]), sample_of(captions, [0, 1], [1, 2]))  # "Rex" and "a dog"

    assert found.tolist() == [[False, True], [False, False]]


def test_a_group_is_never_its_own_negative() -> None:
    captions = [["a"], ["b"], ["c"]]
    duplicates = Duplicates(captions, different_hashes(3), ["same", "other", "same"])

    found = duplicates.ignored(np.array([2, 1, 0]), sample_of(captions, [2, 1, 0], [2, 1, 0]))

    assert found.int().tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_without_duplicates_nothing_is_ignored() -> None:
    captions = [["a", "b"], ["c"], ["d"]]
    duplicates = Duplicates(captions, different_hashes(3), ["1", "2", "3"])

    assert not duplicates.ignored(np.arange(3), sample_of(captions, [0, 1, 2], [0, 1, 2, 3])).any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("turn", [1, 3, "all"])
def test_agrees_with_a_look_at_each_pair(seed: int, turn: int | Literal["all"]) -> None:
    rng = np.random.default_rng(seed)
    captions = [[str(text) for text in rng.integers(40, size=rng.integers(1, 6))] for _ in range(60)]
    groups = [f"g{number}" for number in rng.integers(50, size=60)]
    hashes = rng.choice(different_hashes(40), size=60) ^ rng.choice(np.array([0, 1, 3], dtype=np.uint64), size=60)
    colours = rng.choice([0.0, 100.0], size=(60, 3)).astype(np.float32)
    rows = rng.permutation(60)[:30]
    names = [str(number) for number in range(60)]
    sample = Captions(words_to_tokens, Pairs("", names, captions, groups)).sample(rows, turn, rng)

    found = Duplicates(captions, hashes, groups, colours).ignored(rows, sample)

    flat = [text for texts in captions for text in texts]
    for i, row in enumerate(rows):
        for j, number in enumerate(sample.numbers):
            other = rows[sample.owners[j]]
            alike = int(hashes[row] ^ hashes[other]).bit_count() <= 2 and (colours[row] == colours[other]).all()
            says_it = plain(flat[number]) in map(plain, captions[row])
            assert found[i, j] == (row != other and (alike or says_it or groups[row] == groups[other]))
    assert not (found & sample.positives(len(rows))).any()
    if turn != "all":  # what is no negative of a picture's look-alike is none the other way round, but for captions
        alike = Duplicates([["x" + name] for name in names], hashes, groups, colours)
        one = Sample(sample.tokens, sample.owners, rows)
        assert torch.equal(alike.ignored(rows, one), alike.ignored(rows, one).T)
