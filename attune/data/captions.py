"""The training captions, tokenised once, and which of them come with a batch of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attune.data.pairs import Pairs

Change = Callable[[Sequence[str], Sequence[Sequence[str]], np.random.Generator], list[str]]
"""Captions, for each all captions of its picture, and a source of chance in; as many captions out."""


@dataclass(frozen=True)
class Sample:
    """The captions of a batch of pictures, picture by picture.

    Attributes:
        tokens: int64 (captions, context_length); of matches, which are pictures, (captions, 0).
        owners: int64 (captions,); which picture each belongs to, by its place in the batch.
        numbers: int64 (captions,); which caption each is, counted over all captions of all pictures.
    """

    tokens: Tensor
    owners: np.ndarray
    numbers: np.ndarray

    def positives(self, pictures: int) -> Tensor:
        """Which caption belongs to which of the batch's pictures: bool (pictures, captions)."""
        return torch.from_numpy(np.arange(pictures)[:, None] == self.owners)


class Captions:
    """All captions of some pictures as tokens.

    Args:
        tokenizer: list of texts in, integer tensor (texts, context_length) out.
        pairs: the pictures with their captions, at least one each.

    Attributes:
        counts: int64 (pictures,); captions of each picture.
        first: int64 (pictures,); the number of each picture's first caption.
        tokens: int32 (captions, context_length), or (captions, 0) of matches.
    """

    def __init__(self, tokenizer: Any, pairs: Pairs) -> None:
        self._tokenizer = tokenizer
        self._texts = pairs.captions
        self.counts = np.asarray([len(captions) for captions in pairs.captions], dtype=np.int64)
        self.first = np.cumsum(self.counts) - self.counts
        self.tokens = (
            tokenised(tokenizer, pairs.texts)
            if pairs.kind.caption_tower == "text"
            else torch.empty(len(pairs.texts), 0, dtype=torch.int32)
        )

    def sample(
        self, rows: np.ndarray, turn: int | Literal["all"], rng: np.random.Generator, change: Change | None = None
    ) -> Sample:
        """One caption of each picture, or all of them.

        Args:
            rows: int64 (batch,); the pictures.
            turn: a number, such as the epoch: turn by turn each caption of a picture comes equally often; or `all`.
            rng: source of chance for `change`.
            change: says the chosen captions in other words. Those that it does change are tokenised anew, and that, for a
                whole batch, takes time.

        Example:
            Pictures 0 and 1 have captions 0, 1 and 2, 3, 4. `sample([1, 0], "all", rng)` has `owners` [0, 0, 0, 1, 1]
            and `numbers` [2, 3, 4, 0, 1].
        """
        counts, owners = self.counts[rows], np.arange(len(rows), dtype=np.int64)
        if turn == "all":
            owners = np.repeat(owners, counts)
            place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each picture
        else:
            place = (turn + rows) % counts  # from picture to picture another: first captions may be of another kind
        numbers = self.first[rows][owners] + place
        tokens = self.tokens[torch.from_numpy(numbers)].long()
        if change is not None:
            self._change(tokens, rows[owners], numbers, rng, change)
        return Sample(tokens, owners, numbers)

    def _change(
        self, tokens: Tensor, pictures: np.ndarray, numbers: np.ndarray, rng: np.random.Generator, change: Change
    ) -> None:
        """Writes the tokens of those captions that `change` says differently over their old ones."""
        siblings = [self._texts[picture] for picture in pictures]
        places = numbers - self.first[pictures]
        texts = [captions[place] for captions, place in zip(siblings, places, strict=True)]
        changed = change(texts, siblings, rng)
        differ = [number for number, (old, new) in enumerate(zip(texts, changed, strict=True)) if old != new]
        if differ:
            tokens[differ] = self._tokenizer([changed[number] for number in differ]).long()


def tokenised(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Tokens of texts, int32 (texts, context_length): half of what the tokenizer gives, for as long as they are kept."""
    return torch.cat([tokenizer(list(texts[start : start + 4096])).int() for start in range(0, len(texts), 4096)])
