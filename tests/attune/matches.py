"""Pairs of pictures, for tests."""

import io
import itertools
import random

from PIL import Image, ImageOps

from attune.schemas import TrainingExample
from tests.conftest import BACKGROUNDS, COLOURS, SHAPES, picture


def drawings(count: int = 96, matches: int = 1) -> list[TrainingExample]:
    """Coloured shapes with their negatives, of which the second is larger; at most 96, all different, always the same.

    No shape looks like its negative: a model has to learn which belong together. The label is the colour.
    """
    kinds = list(itertools.product(COLOURS, SHAPES, BACKGROUNDS))
    random.Random(0).shuffle(kinds)
    return [
        TrainingExample(
            image=picture(*kind),
            images=[negative(picture(*kind, size=size)) for size in ((40, 36), (52, 46))[:matches]],
            label=kind[0],
            source=f"pairs.csv, line {number}",
        )
        for number, kind in enumerate(kinds[:count], start=1)
    ]


def negative(encoded: bytes) -> bytes:
    """A picture with each colour's opposite."""
    buffer = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(encoded)).convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()
