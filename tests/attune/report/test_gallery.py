"""Example queries: which are chosen, and what is shown of them."""

import base64
import io

import numpy as np
from PIL import Image

from attune.data.pairs import Pairs
from attune.evaluation.measure import Measurement
from attune.report.gallery import contact_sheet, pick_changed, pick_examples, thumbnail
from attune.report.material import Material

TEST = Pairs("f", ["a", "b", "c"], [["one", "uno"], ["two"], ["three"]], ["1", "2", "3"])
UNIT = np.eye(3, dtype=np.float32)


def measured(to_image: list[int], to_text: list[int], images: np.ndarray = UNIT) -> Measurement:
    """Ranks as given; every caption is where its picture is."""
    ranks = {"text_to_image": np.array(to_image), "image_to_text": np.array(to_text)}
    return Measurement({}, ranks, images, images[[0, 0, 1, 2]])


def test_examples_are_chosen_by_the_change_of_reciprocal_rank_once_a_picture() -> None:
    before = measured([3, 2, 1, 2], [1, 1, 1])
    after = measured([1, 1, 3, 2], [1, 1, 1])
    # Gains: 1 - 1/3, 1 - 1/2 (the same picture), 1/3 - 1, and none.

    found = pick_changed("text_to_image", TEST, before, after)

    assert [(example["query"], example["rank_before"], example["rank_after"]) for example in found["better"]] == [
        ("one", 3, 1)
    ]
    assert [(example["query"], example["rank_before"], example["rank_after"]) for example in found["worse"]] == [
        ("two", 1, 3)
    ]
    assert pick_changed("image_to_text", TEST, before, after) == {"better": [], "worse": []}


def test_hits_from_image_to_text_are_captions_with_the_picture_they_belong_to() -> None:
    found = pick_changed("image_to_text", TEST, measured([1] * 4, [2, 1, 1]), measured([1] * 4, [1, 1, 1]))

    (example,) = found["better"]
    assert example["image"] == 0
    assert [(hit["caption"], hit["image"], hit["score"]) for hit in example["hits_after"]] == [
        ("one", 0, 1.0), ("uno", 0, 1.0), ("two", 1, 0.0), ("three", 2, 0.0),
    ]  # fmt: skip


def test_of_hits_that_score_alike_the_right_one_is_last() -> None:
    collapsed = measured([3] * 4, [3] * 3, np.ones((3, 3), dtype=np.float32) / np.sqrt(3).astype(np.float32))

    for example in pick_examples(TEST, None, collapsed, seed=0):
        assert [hit["image"] for hit in example["hits_after"]].index(example["image"]) == 2


def test_queries_that_gained_and_lost_most_stand_behind_the_random_ones() -> None:
    before, after = measured([3, 2, 1, 2], [1, 1, 1]), measured([1, 1, 3, 2], [1, 1, 1])

    found = pick_examples(TEST, before, after, seed=0)

    assert [example["kind"] for example in found] == ["random"] * 4 + ["better", "worse"]
    assert [example["query"] for example in found[4:]] == ["one", "two"]


def test_random_examples_follow_from_the_seed_and_have_no_before_if_there_is_none() -> None:
    after = measured([1] * 4, [1] * 3)

    first, again = (pick_examples(TEST, None, after, seed=1) for _ in range(2))

    assert first == again
    assert sorted(example["query"] for example in first) == ["one", "three", "two", "uno"]
    assert set(first[0]) == {"kind", "query", "image", "rank_after", "hits_after"}
    assert {"rank_before", "hits_before"} < set(pick_examples(TEST, after, after, seed=1)[0])


def test_the_sheet_is_narrower_without_a_before(material: Material) -> None:
    test, cache = material.test, material.cache

    alone, beside = (pick_examples(test, before, material.after, 0) for before in (None, material.before))
    both, one = (contact_sheet(examples[: len(alone)], test, cache) for examples in (beside, alone))

    assert (both.height, both.width - one.width) == (one.height, 5 * 72 + 24)


def test_a_thumbnail_is_a_small_picture_of_the_same_colours() -> None:
    pixels = np.zeros((3, 300, 150), dtype=np.uint8)
    pixels[0] = 200

    address = thumbnail(pixels)

    kind, _, data = address.partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64"
    assert picture.size == (48, 96)
    assert np.abs(np.asarray(picture)[50, 20] - np.array([200, 0, 0])).max() < 8
