"""What a reader of an evaluation's figures is warned of, besides pictures that leak."""

from collections.abc import Mapping, Sequence

import numpy as np

from attune.characters import shortened
from attune.data.duplicates import caption_keys
from attune.data.pairs import Pairs
from attune.data.parts import Parts
from attune.evaluation.classes import why_no_classes
from attune.evaluation.comparison import FEWEST, Row
from attune.evaluation.measure import queries_of

TIES = 0.1
"""Share of queries that may tie before anything is said of it."""

SHOWN = 3
"""Pairs of items that are nearly the same that are named."""


def cautions(parts: Parts, rows: Sequence[Row], unlike: Mapping[int, int] | None = None) -> list[str]:
    """Sentences on few pictures, on captions that several pictures have, on ties, and on labels that are no classes.

    Args:
        parts: of the run's data.
        rows: of the figures, with the tie rates among them.
        unlike: of single items, held-out ones that are nearly the same as one of another label, see
            `attune.evaluation.look_alikes`.
    """
    found = []
    kind = parts.test.kind
    if len(parts.test) < FEWEST:
        found.append(
            f"Too few {kind.items} to judge: {len(parts.test)} are held out. With fewer than {FEWEST} a difference may well "
            "be chance. Hold out more, or give more as eval_data"
        )
    shared = shared_captions(parts.test.captions)
    if shared and not parts.test.is_graded:
        found.append(
            f"Held-out {kind.captions} that other held-out {kind.items} have too: {shared} of {len(parts.test.texts)}. No "
            f"model can tell which of the {kind.items} is meant, so recall has a ceiling, and recall@1 cannot reach 1. Give "
            f"them {kind.captions} that tell them apart"
        )
    queries = len(queries_of(parts.test)[kind.asked])
    if kind.is_single and queries < len(parts.test):
        found.append(
            f"Held-out {kind.items} whose label no other has: {len(parts.test) - queries} of {len(parts.test)}. There is "
            "nothing to find for them: they are wrong answers to others, and no queries"
        )
    if unlike:
        alike = "say the same as" if kind.of_texts else "are nearly" if kind.of_embeddings else "look nearly like"
        both = list(dict.fromkeys(tuple(sorted(pair)) for pair in unlike.items()))[:SHOWN]
        named = "; ".join(f"{_labelled(parts.test, row)} and {_labelled(parts.test, other)}" for row, other in both)
        found.append(
            f"Held-out {kind.items} that {alike} one of another label: {len(unlike)} of {len(parts.test)}, such as {named}. "
            "To take the one for the other counts as wrong. Look whether their labels are right"
        )
    tied = [
        f"{row.after:.0%} of the queries from {direction.replace('_', ' ')}"
        for direction in kind.directions
        for row in rows
        if row.metric == f"{direction}_tie_rate" and row.after is not None and row.after > TIES
    ]
    if tied:
        found.append(
            f"In {' and '.join(tied)} a wrong answer scores exactly as high as a right one, and stands before it: "
            f"{kind.captions or kind.items} are the same, or the model's embeddings are all alike"
        )
    unclassified = why_no_classes(parts)
    return [*found, unclassified] if unclassified else found


def _labelled(test: Pairs, row: int) -> str:
    """An item in words: its label, and its text or the beginning of its key."""
    name = test.queries[row] if test.queries else test.images[row][:12]
    return f"{shortened(test.labels[row], 40)!r} ({shortened(name, 60)})"


def shared_captions(captions: Sequence[Sequence[str]]) -> int:
    """How many captions another picture has too, but for case, punctuation and spaces.

    Args:
        captions: all captions of each picture.

    Example:
        Of `[["A dog.", "a dog"], ["a dog", "Rex"], ["a cat", "a cat"]]` three: one picture alone has the cat.
    """
    keys = caption_keys(captions)
    pictures = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    once_a_picture = np.unique(np.stack([keys, pictures], axis=1), axis=0)[:, 0]
    return int(np.count_nonzero(np.bincount(once_a_picture)[keys] > 1))
