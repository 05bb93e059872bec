"""What changed between two models, in which parts of the data."""

import numpy as np

from attune.data.pairs import Pairs
from attune.evaluation.effects import effects
from attune.evaluation.measure import Measurement

COUNT = 80
NUMBERS = [str(row) for row in range(COUNT)]


def measured(rank: int) -> Measurement:
    ranks = np.full(COUNT, rank)
    nothing = np.zeros((COUNT, 1), dtype=np.float32)
    return Measurement({}, {"text_to_image": ranks, "image_to_text": ranks}, nothing, nothing)


def test_tags_that_are_called_as_other_slices_stand_beside_them() -> None:
    halves = ["light", "dark"] * (COUNT // 2)
    tags = [{"label": half, "caption length": half, "training data": half, "Style": half, "style": half} for half in halves]
    captions = [["one two three"] for _ in range(COUNT)]
    test = Pairs("f", NUMBERS, captions, NUMBERS, ["cat"] * COUNT, tags)

    found = effects(measured(7), measured(1), test, leaked=list(range(0, COUNT, 2)))

    values = {name: {one["value"] for one in found["slices"] if one["tag"] == name} for name in {
        one["tag"] for one in found["slices"]
    }}  # fmt: skip
    own = {"light", "dark"}
    assert values == {
        "caption length": {"1-5 words"}, "label": {"cat"}, "training data": {"nearly in it", "not in it"},
        "tag caption length": own, "tag label": own, "tag training data": own, "Style": own, "style": own,
    }  # fmt: skip
    assert found["wins"]["text_to_image"] == {"better": COUNT, "worse": 0, "same": 0}
