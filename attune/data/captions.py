"""The training captions, tokenised once, and which of them come with a batch of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attune.data.pairs import Pairs
from attune.models.tokens import Tokens

Change = Callable[[Sequence[str], Sequence[Sequence[str]], np.random.Generator], list[str]]
"""Captions, for each all captions of its picture, and a source of chance in; as many captions out."""


@dataclass(frozen=True)
class Sample:
    """The captions of a batch of pictures, picture by picture, and their negatives if the data has any.

    Attributes:
        tokens: int64 (captions, length), see `attune.models.tokens`; of matches, which are pictures, (captions, 0).
        owners: int64 (captions,); which picture each belongs to, by its place in the batch.
        numbers: int64 (captions,); which caption each is, counted over all captions of all pictures, and then over all
            negatives.
        wrong: bool (captions,); which are negatives of their picture; None if there are none.
        scores: float32 (captions,); of captions with scores, or minus the margins of negatives; None if there are none.
    """

    tokens: Tensor
    owners: np.ndarray
    numbers: np.ndarray
    wrong: np.ndarray | None = None
    scores: np.ndarray | None = None

    def positives(self, pictures: int) -> Tensor:
        """Which caption belongs to which of the batch's pictures: bool (pictures, captions)."""
        own = self._own(pictures)
        return torch.from_numpy(own if self.wrong is None else own & ~self.wrong)

    def scored(self, pictures: int) -> Tensor | None:
        """Scores as losses take them: float32 (pictures, captions), NaN but for each picture's own."""
        return (
            None if self.scores is None else torch.from_numpy(np.where(self._own(pictures), self.scores, np.float32("nan")))
        )

    def _own(self, pictures: int) -> np.ndarray:
        own: np.ndarray = np.arange(pictures)[:, None] == self.owners
        return own


class Captions:
    """All captions of some pictures as tokens.

    Args:
        tokenizer: see `attune.models.tokens.Tokens`.
        pairs: the pictures with their captions, at least one each; or single ones, which have none.

    Attributes:
        counts: int64 (pictures,); captions of each picture.
        first: int64 (pictures,); the number of each picture's first caption.
        tokens: of all captions and then all negatives; None of matches.
    """

    def __init__(self, tokenizer: Any, pairs: Pairs) -> None:
        self._tokenizer = tokenizer
        self._texts = pairs.captions
        self.counts = np.asarray([len(captions) for captions in pairs.captions], dtype=np.int64)
        self.first = np.cumsum(self.counts) - self.counts
        self._negatives = np.asarray([len(texts) for texts in pairs.negatives], dtype=np.int64)
        self._scores = _scores(pairs)
        of_texts = pairs.kind.has_texts
        self.tokens = Tokens(tokenizer, [*pairs.texts, *pairs.wrong_texts]) if of_texts else None

    def sample(
        self, rows: np.ndarray, turn: int | Literal["all"], rng: np.random.Generator, change: Change | None = None
    ) -> Sample:
        """One caption of each picture, and one negative of each that has any; or all of them.

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
        owners, numbers = _drawn(self.counts, rows, turn)
        wrong = None
        if len(self._negatives):
            others, further = _drawn(self._negatives, rows, turn)
            further += self.counts.sum()
            order = np.argsort(np.concatenate([owners, others]), kind="stable")  # picture by picture
            owners, numbers = np.concatenate([owners, others])[order], np.concatenate([numbers, further])[order]
            wrong = numbers >= self.counts.sum()
        tokens = self._tokens(rows[owners], numbers, wrong, rng, change)
        return Sample(tokens, owners, numbers, wrong, None if self._scores is None else self._scores[numbers])

    def _tokens(
        self,
        pictures: np.ndarray,
        numbers: np.ndarray,
        wrong: np.ndarray | None,
        rng: np.random.Generator,
        change: Change | None,
    ) -> Tensor:
        """Tokens of captions and negatives; of those captions that `change` says differently, as it says them."""
        if self.tokens is None:
            return torch.empty(len(numbers), 0, dtype=torch.int64)
        tokens = self.tokens[numbers]
        if change is None:
            return tokens
        own = np.arange(len(numbers)) if wrong is None else np.flatnonzero(~wrong)
        siblings = [self._texts[picture] for picture in pictures[own]]
        places = numbers[own] - self.first[pictures[own]]
        texts = [captions[place] for captions, place in zip(siblings, places, strict=True)]
        changed = change(texts, siblings, rng)
        differ = {place: new for place, old, new in zip(own.tolist(), texts, changed, strict=True) if old != new}
        if not differ:
            return tokens
        return self.tokens.replace(tokens, [*differ], self._tokenizer([*differ.values()]).long())


def _drawn(counts: np.ndarray, rows: np.ndarray, turn: int | Literal["all"]) -> tuple[np.ndarray, np.ndarray]:
    """One text of each picture that has any, or all: the place of each one's picture, and its number, both int64
    (texts,).
    """
    first = np.cumsum(counts) - counts
    owners = np.arange(len(rows), dtype=np.int64)
    if turn == "all":
        owners = np.repeat(owners, counts[rows])
        place = np.arange(len(owners)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])  # 0, 1, ... in each
    else:
        owners = owners[counts[rows] > 0]
        # From picture to picture another: first captions may be of another kind.
        place = (turn + rows[owners]) % counts[rows[owners]]
    return owners, first[rows[owners]] + place


def _scores(pairs: Pairs) -> np.ndarray | None:
    """Of each caption and each negative, float32; see `Sample.scores`."""
    if pairs.margins:
        captions = np.zeros(len(pairs.texts), dtype=np.float32)
        return np.concatenate([captions, -np.asarray(list(chain(*pairs.margins)), dtype=np.float32)])
    return np.asarray(list(chain(*pairs.scores)), dtype=np.float32) if pairs.scores else None
