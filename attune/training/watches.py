"""What a run's `EvaluationCallback`s look at: queries, what they search, and which of it are right answers."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from attune.callback_settings import Encoder, EvaluationCallback
from attune.data.pairs import Pairs, load_pairs
from attune.data.pixels import PixelCache
from attune.errors import DataError
from attune.evaluation.measure import embed_captions, embed_items, pixels_of
from attune.evaluation.modes import finetuner
from attune.evaluation.places import places
from attune.evaluation.relevance import Relevance, from_labels
from attune.evaluation.top_k import top_k
from attune.kinds import IMAGE
from attune.models.clip import Clip
from attune.settings import FinetuningSettings

EXAMPLES = 12
HITS = 5
MOST_PAIRS = 5_000_000
"""Each takes some 100 bytes and about a microsecond, every epoch."""


@dataclass(frozen=True)
class Items:
    """Queries, or an index.

    Attributes:
        encoder: `clip-text`: the items are the captions of `pairs`, in order, or the matches in their place;
            `clip-vision`: its pictures, or the texts in their place.
        pairs: the dataset.
        cache: its pixels; None of texts.
    """

    encoder: Encoder
    pairs: Pairs
    cache: PixelCache | None

    def embed(self, clip: Clip, batch_size: int) -> np.ndarray:
        """The items' embeddings, float32 (items, dim)."""
        if self.encoder == "clip-text":
            return embed_captions(clip, self.pairs, self.cache, batch_size)
        return embed_items(clip, self.pairs, self.cache, batch_size)

    @property
    def names(self) -> list[str]:
        """Each item as a person reads it: a caption, or the first caption of a picture."""
        return self.pairs.caption_names if self.encoder == "clip-text" else self.pairs.names


@dataclass(frozen=True)
class Watch:
    """A callback of a run at work.

    Attributes:
        callback: what was asked for.
        queries: what is looked for.
        index: what is searched.
        relevance: which of the index are right answers to which query.
    """

    callback: EvaluationCallback
    queries: Items
    index: Items
    relevance: Relevance

    @property
    def itself(self) -> bool:
        """Whether each query is among its answers, where it does not count."""
        return _is_among_answers(self.callback, self.queries.pairs)

    @property
    def limit(self) -> int:
        """How many of the first answers count: what was asked for, but no more than there are."""
        return min(self.callback.limit, self.relevance.answers - self.itself)

    def figures(self, queries: np.ndarray, index: np.ndarray) -> dict[str, float]:
        """Finetuner's figures of the first `limit` answers, each the mean over the queries that have a right one."""
        found = places(queries, index, self.relevance, exclude_self=self.itself)
        return {name: float(np.nanmean(values)) for name, values in finetuner(found, self.limit).items()}

    def examples(self, queries: np.ndarray, index: np.ndarray) -> list[dict[str, Any]]:
        """Some queries, the same each time, with their first answers."""
        chosen = np.linspace(0, len(queries) - 1, min(EXAMPLES, len(queries))).astype(int)
        scores, answers = top_k(queries[chosen], index, min(HITS + self.itself, len(index)))
        names, found = self.index.names, self.queries.names
        return [
            {
                "query": found[query],
                "hits": [
                    {"answer": names[answer], "score": round(float(score), 4)}
                    for answer, score in zip(answers[row], scores[row], strict=True)
                    if not (self.itself and answer == query)
                ][:HITS],
            }
            for row, query in enumerate(chosen)
        ]


def load_watches(settings: FinetuningSettings, fingerprints: dict[str, str], clip: Clip) -> list[Watch]:
    """The run's callbacks with their data.

    Args:
        settings: of the run.
        fingerprints: content of each dataset that they name.
        clip: gives the size of the pictures.
    """
    watches = []
    for callback in settings.evaluations:
        loaded = [load_pairs(fingerprints[name]) for name in (callback.query_data, callback.searched)]
        queries, index = (
            Items(encoder, pairs, pixels_of(clip, pairs))
            for pairs, encoder in zip(loaded, _encoders(callback, loaded[0]), strict=True)
        )
        relevance = from_labels(*belonging(callback, queries.pairs, index.pairs), _is_among_answers(callback, queries.pairs))
        watches.append(Watch(callback, queries, index, relevance))
    return watches


def belonging(callback: EvaluationCallback, queries: Pairs, index: Pairs) -> tuple[list[str], list[str]]:
    """What each query and each of the index belongs to: its label if all have one, else its picture.

    Raises:
        DataError: if no query has a right answer, a query has only one answer to choose from, or there are more pairs of a
            query and a right answer than `MOST_PAIRS`.
    """
    labelled = all(queries.labels) and all(index.labels)
    asked, there = (
        [
            name
            for name, captions in zip(pairs.labels if labelled else pairs.images, pairs.captions, strict=True)
            for _ in (captions if encoder == "clip-text" else (name,))
        ]
        for pairs, encoder in zip((queries, index), _encoders(callback, queries), strict=True)
    )
    item, itself = queries.kind.item, _is_among_answers(callback, queries)
    enough = 2 if itself else 1
    if not set(asked) & {name for name, count in Counter(there).items() if count >= enough}:
        raise DataError(
            f"callbacks: no query of {callback.query_data!r} has a right answer in "
            f"{callback.searched!r} (the same {'label' if labelled else item}"
            f"{', besides itself' if itself else ''}). Give every {item} of both a label, or use data that "
            f"holds the same {queries.kind.items}"
        )
    if len(there) - itself < 2:
        of_captions, kind = _encoders(callback, index)[1] == "clip-text", index.kind
        one, several = (kind.caption, kind.captions) if of_captions else (kind.item, kind.items)
        besides = ", besides the query" if itself else ""
        raise DataError(
            f"callbacks: {callback.searched!r} has one {one} to search{besides}: it comes first whatever the model. Give "
            f"data with more {several}"
        )
    right = Counter(there)
    pairs = sum(right[name] for name in asked)
    if pairs > MOST_PAIRS:
        raise DataError(
            f"callbacks: {callback.query_data!r} has {pairs:,} pairs of a query and a right answer, and at most "
            f"{MOST_PAIRS:,} can be ranked after every epoch. Use fewer queries, or a smaller index_data"
        )
    return asked, there


def _is_among_answers(callback: EvaluationCallback, queries: Pairs) -> bool:
    """Whether a query is among what it searches: where it is told so, and where single items search each other."""
    return callback.exclude_self or (queries.kind.is_single and callback.searched == callback.query_data)


def _encoders(callback: EvaluationCallback, pairs: Pairs) -> tuple[Encoder, Encoder]:
    """What embeds queries and index; of pairs of texts or of pictures, items look among what belongs to them."""
    if pairs.kind is IMAGE:
        return callback.encoders
    return "clip-vision", "clip-vision" if pairs.kind.is_single else "clip-text"
