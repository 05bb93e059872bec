"""What datasets of a run must not share: a figure would tell of memory, or of the choice that was made by it."""

from collections.abc import Mapping
from itertools import combinations

from attune.characters import shortened
from attune.data.pairs import Pairs
from attune.errors import DataError

SHOWN = 5
"""Shared pictures or groups that are named."""

_WHY = {
    ("train_data", "eval_data"): "A model would be measured on what it learnt",
    ("train_data", "val_data"): "Weights would be chosen by what they learnt",
    ("eval_data", "val_data"): "Weights would be measured on what they were chosen by",
}


def refuse_overlap(given: Mapping[str, Pairs], names: Mapping[str, str | None]) -> None:
    """Passes if no two datasets have a picture, or a text in its place, or a group in common.

    Args:
        given: by setting, `train_data` before `eval_data` before `val_data`, what it names.
        names: by setting, the dataset's name.

    Raises:
        DataError: with the first few that are shared.
    """
    for known, other in combinations(given, 2):
        pairs, images, groups = given[other], set(given[known].images), set(given[known].groups)
        shared: dict[str, str] = {}
        for image, group, name in zip(pairs.images, pairs.groups, pairs.names, strict=True):
            if image in images:
                shared[image] = f"{pairs.kind.item} {image[:12]} ({shortened(name, 60)!r})"
            elif group in groups:
                shared[group] = f"group {shortened(group, 60)!r}"
        if shared:
            named = ", ".join(list(shared.values())[:SHOWN])
            more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
            raise DataError(
                f"{other} {names[other]!r} and {known} {names[known]!r} share {len(shared)} {pairs.kind.items} or groups: "
                f"{named}{more}. {_WHY[known, other]}. Remove them from one of the two"
            )
