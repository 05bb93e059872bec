from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.data.captions import Captions
from attune.data.pairs import Pairs
from attune.models.clip import load_clip

TEXTS = [["10"], ["20", "21", "22"], ["30", "31"], ["40", "41", "42", "43", "44"]]


def words_to_tokens(texts: Sequence[str]) -> torch.Tensor:
    """A tokenizer for texts of numbers: each word is its own token, at most 8, the rest is 0."""
    return torch.tensor([([int(word.rstrip(".")) for word in text.split()] + [0] * 8)[:8] for text in texts])


@pytest.fixture
def captions() -> Captions:
    names = [str(number) for number in range(len(TEXTS))]
    return Captions(words_to_tokens, Pairs("", names, TEXTS, names))


def test_a_picture_trains_with_each_of_its_captions_in_turn(captions: Captions) -> None:
    rng = np.random.default_rng(0)
    rows = np.array([3, 0, 1])

    samples = [captions.sample(rows, rng) for _ in range(300)]

    assert all(sample.owners.tolist() == [0, 1, 2] for sample in samples)
    drawn = [Counter(int(sample.tokens[place, 0]) for sample in samples) for place in range(3)]
    assert [set(each) for each in drawn] == [{40, 41, 42, 43, 44}, {10}, {20, 21, 22}]
    assert min(drawn[0].values()) > 35  # 60 expected, standard deviation 7


def test_a_models_own_tokens_come_out(tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    captions = Captions(clip.tokenizer, Pairs("", ["1", "2"], [["a dog"], ["a cat", "one cat"]], ["1", "2"]))

    sample = captions.sample(np.array([1, 0]), np.random.default_rng(0), "all")

    assert captions.tokens.dtype == torch.int32
    assert sample.tokens.dtype == torch.int64
    assert torch.equal(sample.tokens, clip.tokenizer(["a cat", "one cat", "a dog"]))


@pytest.mark.parametrize("per_image", [1, 2, 3, 9])
def test_that_many_different_captions_of_each_picture_are_drawn(captions: Captions, per_image: int) -> None:
    rng = np.random.default_rng(1)
    rows = np.array([2, 3, 0])
    seen: list[set[int]] = [set(), set(), set()]

    for _ in range(60):
        sample = captions.sample(rows, rng, per_image)

        assert sample.owners.tolist() == sorted(sample.owners)
        for place, row in enumerate(rows):
            drawn = sample.tokens[torch.from_numpy(sample.owners == place)][:, 0].tolist()
            assert len(drawn) == len(set(drawn)) == min(per_image, len(TEXTS[row]))
            seen[place] |= set(drawn)

    assert seen == [{int(text) for text in TEXTS[row]} for row in rows]


def test_all_captions_come_picture_by_picture(captions: Captions) -> None:
    sample = captions.sample(np.array([2, 0, 1]), np.random.default_rng(0), "all")

    assert sample.tokens[:, 0].tolist() == [30, 31, 10, 20, 21, 22]
    assert sample.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert sample.numbers.tolist() == [4, 5, 0, 1, 2, 3]


@pytest.mark.parametrize("per_image", [1, 2, "all"])
def test_numbers_say_which_caption_it_is(captions: Captions, per_image: int) -> None:
    sample = captions.sample(np.array([3, 1]), np.random.default_rng(0), per_image)

    flat = [int(text) for texts in TEXTS for text in texts]
    assert [flat[number] for number in sample.numbers] == sample.tokens[:, 0].tolist()


def test_positives_are_a_pictures_own_captions(captions: Captions) -> None:
    sample = captions.sample(np.array([2, 0]), np.random.default_rng(0), "all")

    assert sample.positives(2).tolist() == [[True, True, False], [False, False, True]]


def test_only_what_was_said_differently_gets_new_tokens() -> None:
    asked: list[list[str]] = []

    def tokenizer(texts: list[str]) -> torch.Tensor:
        asked.append(list(texts))
        return words_to_tokens(texts)

    captions = Captions(tokenizer, Pairs("", ["1", "2"], [["10"], ["20", "21"]], ["1", "2"]))
    told = []

    def change(texts: Sequence[str], siblings: Sequence[Sequence[str]], rng: np.random.Generator) -> list[str]:
        told.append((list(texts), list(siblings)))
        return ["99 98" if text == "21" else text for text in texts]

    sample = captions.sample(np.array([1, 0]), np.random.default_rng(0), "all", change)

    assert told == [(["20", "21", "10"], [["20", "21"], ["20", "21"], ["10"]])]
    assert asked == [["10", "20", "21"], ["99 98"]]
    assert sample.tokens[:, :2].tolist() == [[20, 0], [99, 98], [10, 0]]
    assert captions.sample(np.array([1]), np.random.default_rng(0), "all").tokens[:, 0].tolist() == [20, 21]


def test_more_captions_than_one_chunk_are_all_tokenised() -> None:
    texts = [[str(number), str(number + 1)] for number in range(0, 9000, 2)]
    names = [str(number) for number in range(len(texts))]

    captions = Captions(words_to_tokens, Pairs("", names, texts, names))

    assert captions.tokens[:, 0].tolist() == list(range(9000))


def test_no_caption_at_all_is_refused(captions: Captions) -> None:
    with pytest.raises(ValueError, match="per_image is 0"):
        captions.sample(np.array([0]), np.random.default_rng(0), 0)
