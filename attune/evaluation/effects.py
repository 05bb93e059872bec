"""What changed between two models: queries that gained and lost, and the difference slice by slice."""

from typing import Any

import numpy as np

from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement, queries_of
from attune.evaluation.slices import caption_length, effect_by_slice, wins_and_losses
from attune.metrics import query_values

METRIC = "recall@5"
"""From captions to items, text to image, or among single items: what slices are compared by."""


def effects(before: Measurement, after: Measurement, test: Pairs, leaked: list[int]) -> dict[str, Any]:
    """Wins and losses of both directions, and slices of the captions by their length, their picture's label and tags.

    Args:
        before: of the one model.
        after: of the other.
        test: what both were measured on.
        leaked: rows of held-out pictures that are in the training data, see `attune.evaluation.leakage`; if there are any,
            they and the rest are slices too.

    Returns:
        `wins`: by direction `better`, `worse` and `same` queries; `slices`: see `attune.evaluation.slices.Slice`.
    """
    old, new = (query_values(one.ranks[one.kind.directions[0]])[METRIC] for one in (before, after))
    owner = queries_of(test)[test.kind.directions[0]]
    slices = effect_by_slice(old, new, owner, _tags(test, owner, leaked))
    return {
        "wins": {name: wins_and_losses(before.ranks[name], after.ranks[name]) for name in after.kind.directions},
        "slices": [one.model_dump() for one in slices],
    }


def _tags(test: Pairs, owner: np.ndarray, leaked: list[int]) -> dict[str, list[str]]:
    """By tag, the value of each query. A tag of the data that is called as one of these is `tag label` and so on."""
    of_picture = {"label": test.labels}
    if leaked:
        there = set(leaked)
        of_picture["training data"] = ["nearly in it" if row in there else "not in it" for row in range(len(test))]
    of_texts = test.kind.has_texts
    found = {f"{test.kind.caption} length": caption_length(test.texts)} if of_texts else {}
    found |= {name: [values[row] for row in owner] for name, values in of_picture.items()}
    for name in sorted({name for tags in test.tags for name in tags}):
        free = name
        while free in found:
            free = f"tag {free}"
        found[free] = [test.tags[row].get(name, "") for row in owner]
    return found
