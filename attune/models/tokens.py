"""Tokens of many texts, one text's after another's: a long text makes those beside it no longer."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK = 512
"""Texts that are tokenised at once: while it works, a tokenizer takes some hundred bytes for each token."""

MOST_PAIRS = 2**24
"""Pairs of tokens that attention compares in one batch, which is what long texts take memory for: 256 texts of 256 tokens,
64 of 512. A text of more is a batch by itself."""


class Tokens:
    """Tokens of texts in the memory that they take themselves.

    A tokenizer of a text encoder has a function `ragged`, which fills nothing up, and the `pad_id` to do it with later. To a
    CLIP's towers what fills a text up may matter: the tokens of a tokenizer without them are kept whole.

    Args:
        tokenizer: list of texts in, integer tensor (texts, length) out; `ragged`: a list of tokens for each out, none empty.
        texts: to tokenise, some at a time.

    Attributes:
        values: int32 (tokens of all texts,).
        lengths: int64 (texts,); tokens of each.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._pad_id = getattr(tokenizer, "pad_id", 0)
        tokenise = getattr(tokenizer, "ragged", tokenizer)
        parts, lengths = [np.empty(0, np.int32)], list[int]()
        for start in range(0, len(texts), CHUNK):
            found = tokenise(list(texts[start : start + CHUNK]))
            parts.append(np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens in found]))
            lengths.extend(map(len, found))
        self.values = np.concatenate(parts)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self._ends = self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, numbers: np.ndarray) -> Tensor:
        """Tokens of some texts, int64 (texts, length of the longest), filled up at the end.

        Args:
            numbers: of the texts, int64 (texts,).
        """
        lengths = self.lengths[numbers]
        places = np.arange(lengths.max(initial=0))
        own = places < lengths[:, None]
        found = np.full(own.shape, self._pad_id, dtype=np.int64)
        found[own] = self.values[((self._ends[numbers] - lengths)[:, None] + places)[own]]
        return torch.from_numpy(found)

    def replace(self, tokens: Tensor, rows: Sequence[int], others: Tensor) -> Tensor:
        """A batch with other texts in some rows; as long as its longest text, or as the others'.

        Args:
            tokens: int64 (texts, length).
            rows: to write over.
            others: what is written there, int64 (rows, length) of another length.
        """
        length = max(tokens.shape[1], others.shape[1])
        found = tokens.new_full((len(tokens), length), self._pad_id)
        found[:, : tokens.shape[1]] = tokens
        found[rows] = self._pad_id
        found[rows, : others.shape[1]] = others
        return found

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """The texts without those whose tokens another one has, longest first and then by their tokens.

        Returns:
            Their numbers, int64 (distinct,), and for each text its place among them, int64 (texts,).
        """
        keys = self.values.astype(">i4")  # whose bytes are ordered as the numbers are
        bounds = zip(self._ends - self.lengths, self._ends, strict=True)
        known: dict[bytes, list[int]] = {}
        for number, (start, end) in enumerate(bounds):
            known.setdefault(keys[start:end].tobytes(), []).append(number)
        order = sorted(known, key=lambda key: (-len(key), key))
        places = np.empty(len(self), dtype=np.int64)
        for place, key in enumerate(order):
            places[known[key]] = place
        return np.asarray([known[key][0] for key in order], dtype=np.int64), places

    def batches(self, numbers: np.ndarray, size: int) -> Iterator[Tensor]:
        """Tokens of texts, batch by batch, see `__getitem__`: fewer texts at once where they are long.

        Args:
            numbers: of the texts, longest first.
            size: texts of a batch at most.
        """
        start = 0
        while start < len(numbers):
            fit = MOST_PAIRS // int(self.lengths[numbers[start]]) ** 2
            end = start + max(1, min(size, fit))
            yield self[numbers[start:end]]
            start = end
