from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
    rows = np.array([3, 0, 1])

    samples = [captions.sample(rows, turn, np.random.default_rng(0)) for turn in range(1, 31)]

    assert all(sample.owners.tolist() == [0, 1, 2] for sample in samples)
    drawn = [Counter(int(sample.tokens[place, 0]) for sample in samples) for place in range(3)]
    assert drawn == [dict.fromkeys([40, 41, 42, 43, 44], 6), {10: 30}, dict.fromkeys([20, 21, 22], 10)]


def test_a_turn_has_first_captions_of_some_pictures_and_later_ones_of_others() -> None:
    names = [str(number) for number in range(40)]
    captions = Captions(words_to_tokens, Pairs("", names, [["1", "2", "3", "4", "5"]] * 40, names))

    sample = captions.sample(np.arange(40), 1, np.random.default_rng(0))

    assert Counter(sample.tokens[:, 0].tolist()) == dict.fromkeys([1, 2, 3, 4, 5], 8)


def test_a_models_own_tokens_come_out(tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    captions = Captions(clip.tokenizer, Pairs("", ["1", "2"], [["a dog"], ["a cat", "one cat"]], ["1", "2"]))

    sample = captions.sample(np.array([1, 0]), "all", np.random.default_rng(0))

    assert sample.tokens.dtype == torch.int64
    assert torch.equal(sample.tokens, clip.tokenizer(["a cat", "one cat", "a dog"]))


def test_all_captions_come_picture_by_picture(captions: Captions) -> None:
    sample = captions.sample(np.array([2, 0, 1]), "all", np.random.default_rng(0))

    assert sample.tokens[:, 0].tolist() == [30, 31, 10, 20, 21, 22]
    assert sample.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert sample.numbers.tolist() == [4, 5, 0, 1, 2, 3]


@pytest.mark.parametrize("turn", [1, 2, "all"])
def test_numbers_say_which_caption_it_is(captions: Captions, turn: int | Literal["all"]) -> None:
    sample = captions.sample(np.array([3, 1]), turn, np.random.default_rng(0))

    flat = [int(text) for texts in TEXTS for text in texts]
    assert [flat[number] for number in sample.numbers] == sample.tokens[:, 0].tolist()


def test_positives_are_a_pictures_own_captions(captions: Captions) -> None:
    sample = captions.sample(np.array([2, 0]), "all", np.random.default_rng(0))

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

    sample = captions.sample(np.array([1, 0]), "all", np.random.default_rng(0), change)

    assert told == [(["20", "21", "10"], [["20", "21"], ["20", "21"], ["10"]])]
    assert asked == [["10", "20", "21"], ["99 98"]]
    assert sample.tokens[:, :2].tolist() == [[20, 0], [99, 98], [10, 0]]
    assert captions.sample(np.array([1]), "all", np.random.default_rng(0)).tokens[:, 0].tolist() == [20, 21]


def test_more_captions_than_one_chunk_are_all_tokenised() -> None:
    texts = [[str(number), str(number + 1)] for number in range(0, 9000, 2)]
    names = [str(number) for number in range(len(texts))]

    captions = Captions(words_to_tokens, Pairs("", names, texts, names))

    sample = captions.sample(np.arange(4500), "all", np.random.default_rng(0))
    assert sample.tokens[:, 0].tolist() == list(range(9000))
