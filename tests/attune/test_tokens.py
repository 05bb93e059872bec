"""Tokens of many texts: whole again when they are taken out, and in no more memory than they need."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from attune.data.captions import Captions
from attune.data.pairs import Pairs
from attune.models import tokens as module
from attune.models.clip import Clip, load_clip
from attune.models.text import encode_text, trim
from attune.models.tokens import Tokens
from tests.attune.sentences import save_plain, save_sentence

TEXTS = ["where is alpha north?", "red dog", "a", "", "[PAD] bear, all [PAD]", "yellow wolf " * 30, "red  dog"]
LONG = 8192


class Numbers:
    """A tokenizer for texts of numbers, each word its own token."""

    pad_id = 99

    def ragged(self, texts: list[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(save_sentence(tmp_path_factory.mktemp("tokens") / "bert")))


@pytest.fixture(scope="module")
def long_reader(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A tiny encoder that reads 8,192 tokens of a text."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "max_position_embeddings": LONG}
    folder = save_plain(tmp_path_factory.mktemp("tokens") / "long", **sizes)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": LONG}))
    return load_clip(str(folder))


def filled_up(clip: Clip, folder: Path) -> Callable[[list[str]], Tensor]:
    """The same tokens, filled up to the whole of the context."""
    own = AutoTokenizer.from_pretrained(folder)
    length = clip.config["context_length"]

    def tokenise(texts: list[str]) -> Tensor:
        found: Any = own(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens: Tensor = found["input_ids"]
        return tokens

    return tokenise


def test_texts_come_out_filled_up_to_the_longest_of_them() -> None:
    tokens = Tokens(Numbers(), ["1 2", "3", "4 5 6 7", "8 9 10"])

    assert tokens[np.array([1, 3, 0])].tolist() == [[3, 99, 99], [8, 9, 10], [1, 2, 99]]
    assert tokens[np.array([1])].tolist() == [[3]]
    assert (tokens.values.dtype, tokens.values.tolist()) == (np.int32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert tokens[np.array([], dtype=np.int64)].shape == (0, 0)
    assert len(Tokens(Numbers(), [])) == 0


def test_others_in_their_place_may_be_shorter_or_longer() -> None:
    tokens = Tokens(Numbers(), ["1 2 3", "4"])
    batch = tokens[np.array([0, 1])]

    assert tokens.replace(batch, [0], torch.tensor([[7]])).tolist() == [[7, 99, 99], [4, 99, 99]]
    assert tokens.replace(batch, [1], torch.tensor([[5, 6, 7, 8]])).tolist() == [[1, 2, 3, 99], [5, 6, 7, 8]]


def test_equal_tokens_are_found_and_long_texts_are_embedded_first_and_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(Numbers(), ["2", "1 2 3", "300", "2", "1 1 9", "1 2 3"])
    monkeypatch.setattr(module, "MOST_PAIRS", 9)

    numbers, places = tokens.distinct()

    assert numbers.tolist() == [4, 1, 0, 2]  # 1 1 9, 1 2 3, 2, 300
    assert places.tolist() == [2, 1, 3, 2, 0, 1]
    assert [batch.tolist() for batch in tokens.batches(numbers, 8)] == [[[1, 1, 9]], [[1, 2, 3]], [[2], [300]]]
    assert [len(batch) for batch in tokens.batches(numbers[2:], 1)] == [1, 1]


def test_texts_of_more_than_one_chunk_are_all_there() -> None:
    tokens = Tokens(Numbers(), [str(number) for number in range(3 * module.CHUNK + 5)])

    assert tokens.values.tolist() == list(range(3 * module.CHUNK + 5))


def test_tokens_of_a_clip_are_kept_whole(tiny_model: Path) -> None:
    """Its text tower may look at what fills them up."""
    clip = load_clip(str(tiny_model))

    assert torch.equal(Tokens(clip.tokenizer, TEXTS)[np.array([5, 0, 2])], clip.tokenizer([TEXTS[5], TEXTS[0], TEXTS[2]]))
    assert Tokens(clip.tokenizer, TEXTS).lengths.tolist() == [16] * len(TEXTS)


def test_embeddings_are_those_of_texts_filled_up_to_the_whole_context(clip: Clip) -> None:
    whole = filled_up(clip, Path(clip.name))(TEXTS)
    with torch.inference_mode():
        expected = encode_text(clip.model.eval(), whole).numpy()

    assert whole.shape == (len(TEXTS), 32)
    for batch_size in (1, 3, 256):
        np.testing.assert_allclose(clip.encode_texts(TEXTS, batch_size), expected, rtol=0, atol=3e-7)
    assert np.array_equal(clip.encode_texts(TEXTS)[1], clip.encode_texts(TEXTS)[6])


def test_batches_of_a_run_are_those_of_texts_filled_up_to_the_whole_context(clip: Clip) -> None:
    names = [str(number) for number in range(len(TEXTS) - 1)]
    pairs = Pairs("", names, [[text] for text in TEXTS[1:]], names)
    whole = filled_up(clip, Path(clip.name))

    for rows in (np.array([1, 0]), np.array([2, 4, 3])):
        sample = Captions(clip.tokenizer, pairs).sample(rows, 1, np.random.default_rng(0))
        expected = trim(whole([TEXTS[1 + row] for row in rows]), clip.model)
        assert torch.equal(trim(sample.tokens, clip.model), expected)


def test_memory_is_that_of_the_texts_and_not_of_the_longest_that_could_be(long_reader: Clip) -> None:
    """Filled up, 1,000 texts of 8,192 tokens would be 64 MB and more; one text of full length is among them."""
    assert long_reader.config["context_length"] == LONG
    texts = [f"red dog {number}" for number in range(1000)]
    texts[500] = "red dog " * LONG
    pairs = Pairs("", texts, [[text] for text in texts], texts)
    long_reader.encode_texts(texts[:2])  # what is made at the first use is not counted

    tracemalloc.start()  # counts what Python and numpy take, not torch
    try:
        found = long_reader.encode_texts(texts)
        captions = Captions(long_reader.tokenizer, pairs)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 8_000_000
    assert found.shape == (1000, 8)
    assert captions.sample(np.array([500]), 1, np.random.default_rng(0)).tokens.shape == (1, LONG)
    assert captions.sample(np.array([7]), 1, np.random.default_rng(0)).tokens.shape == (1, 5)
