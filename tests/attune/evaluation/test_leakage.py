import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from attune.data.duplicates import SAME_COLOUR, mean_colours, picture_hashes, thumbnails
from attune.data.pairs import Pairs
from attune.evaluation import leakage
from attune.evaluation.leakage import Leaks, find_leaks
from tests.attune.test_duplicates import disc, photograph


def part(pictures: list[np.ndarray], captions: list[list[str]] | None = None) -> tuple[Pairs, np.ndarray]:
    """Pictures as a part of a dataset: its pairs, and its pixels row by row."""
    names = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in pictures]
    return Pairs("", names, captions or [[name] for name in names], names), np.stack(pictures)


def stored_again(pixels: np.ndarray, size: int = 72, brightness: float = 1.0, quality: int = 85) -> np.ndarray:
    """The picture after it was scaled, brightened and stored as JPEG, back at its own size."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    ImageEnhance.Brightness(image.resize((size, size))).enhance(brightness).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).resize(pixels.shape[1:])).transpose(2, 0, 1)


CHANGES = {
    "encoded": {"size": 64, "quality": 75},
    "smaller": {"size": 48},
    "larger": {"size": 90},
    "brighter": {"brightness": 1.04},
    "darker": {"brightness": 0.96},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_picture_that_was_stored_again_is_found_and_others_are_not(change: dict[str, float]) -> None:
    train = [photograph(seed) for seed in range(10)]
    test = [photograph(100), stored_again(train[3], **change), photograph(101), train[5][:, :, ::-1]]

    leaks = find_leaks(*part(train), *part(test))

    assert leaks == Leaks(exact=[], near=[(1, 3)], captions=0)
    assert leaks.rows == [1]


def test_the_same_file_is_exact_and_not_near_as_well() -> None:
    train = [photograph(seed) for seed in range(4)]

    leaks = find_leaks(*part(train), *part([stored_again(train[0]), photograph(100), train[2]]))

    assert (leaks.exact, leaks.near, leaks.rows) == ([2], [(0, 0)], [0, 2])


def test_a_picture_is_named_with_the_nearest_of_those_it_looks_like() -> None:
    steps = np.zeros((8, 9), dtype=np.uint8)
    steps[:4] = np.arange(0, 90, 10)  # 32 bits; the other fields are plain
    one, two = steps.copy(), steps.copy()
    one[0, 8] -= 20  # the last step goes down: one bit less
    two[0, 8], two[1, 8] = one[0, 8], one[0, 8]
    asked, *others = (np.broadcast_to(grey, (3, 8, 9)) for grey in (steps, two, one, two))

    assert find_leaks(*part(others), *part([asked])).near == [(0, 1)]


def test_pictures_of_another_colour_are_other_pictures() -> None:
    train, test = [disc((200, 0, 0))], [disc((0, 80, 200)), stored_again(disc((200, 0, 0)))]

    assert find_leaks(*part(train), *part(test)).near == [(1, 0)]


def test_blank_pictures_are_not_all_alike() -> None:
    train = [np.full((3, 64, 64), level, dtype=np.uint8) for level in (0, 128, 255)]
    test = [np.full((3, 64, 64), level, dtype=np.uint8) for level in (1, 128, 254)]

    leaks = find_leaks(*part(train), *part(test))

    assert (leaks.exact, leaks.near) == ([1], [])  # only what is equal byte for byte


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tile", [1, 70, 1_000_000])
def test_agrees_with_a_look_at_each_pair(seed: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "TILE", tile)
    rng = np.random.default_rng(seed)
    kinds = [photograph(kind, size=18)[:, :16] for kind in range(8)]  # fields of 2 x 2 pixels
    changed = [np.clip(kind + rng.integers(-25, 26, size=kind.shape), 0, 255).astype(np.uint8) for kind in kinds * 5]
    train, test = part(changed[:30]), part([np.clip(pixels + 5.0, 0, 255).astype(np.uint8) for pixels in changed[15:]])

    leaks = find_leaks(*train, *test)

    hashes, others = picture_hashes(test[1]), picture_hashes(train[1])
    colours, other_colours = mean_colours(test[1]), mean_colours(train[1])
    expected = []
    for row in range(25):
        bits = {
            other: int(hashes[row] ^ others[other]).bit_count()
            for other in range(30)
            if np.abs(colours[row] - other_colours[other]).max() <= SAME_COLOUR
        }
        if min(bits.values(), default=64) <= 2:
            expected.append((row, min(bits, key=lambda other: (bits[other], other))))
    assert leaks.near == expected
    assert 0 < len(expected) < 25


def test_sizes_need_not_be_equal_and_thumbnails_are_enough() -> None:
    train, (test, pixels) = part([photograph(1), photograph(2)]), part([photograph(2, size=96)])

    assert find_leaks(*train, test, pixels).near == [(0, 1)]
    assert find_leaks(train[0], thumbnails(train[1]), test, thumbnails(pixels)).near == [(0, 1)]


def test_captions_are_counted_but_for_case_and_punctuation() -> None:
    train = part([photograph(1), photograph(2)], [["A dog.", "one dog"], ["a cat"]])
    test = part([photograph(3), photograph(4)], [["a dog", "a cat!", "a horse"], ["a dog"]])

    leaks = find_leaks(*train, *test)

    assert leaks == Leaks(exact=[], near=[], captions=3)
    assert leaks.describe() == "Held-out captions that training pictures have too: 3, as is usual of short ones."


def test_says_how_many_leak_and_nothing_if_none_does() -> None:
    assert Leaks(exact=[], near=[], captions=0).describe() == ""
    assert Leaks(exact=[4], near=[(7, 1), (2, 0)], captions=0).describe() == (
        "Held-out pictures that are training pictures, or look nearly like one: 3 (1 the same file, 2 nearly alike). "
        "On these a model may be measured on what it learnt."
    )
    assert Leaks(exact=[4], near=[(7, 1), (2, 0)], captions=0).rows == [2, 4, 7]


def test_pixels_of_other_pictures_are_refused() -> None:
    pairs, pixels = part([photograph(1), photograph(2)])

    with pytest.raises(ValueError, match="pixels of 2 pictures for 1 pairs"):
        find_leaks(pairs, pixels, pairs.take([0]), pixels)


def test_nothing_leaks_where_nothing_was_trained() -> None:
    pairs, pixels = part([photograph(1), photograph(2)])

    assert find_leaks(pairs.take([]), pixels[:0], pairs, pixels) == Leaks(exact=[], near=[], captions=0)
