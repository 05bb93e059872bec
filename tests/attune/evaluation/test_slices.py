import math

import numpy as np
import pytest

from attune.evaluation.bootstrap import paired_difference
from attune.evaluation.slices import caption_length, effect_by_slice, holm, wins_and_losses


def test_wins_and_losses_done_by_hand() -> None:
    before = np.array([2, 90, 7, 1, 3, 50])
    after = np.array([1, 3, 7, 2, 5, 60])

    found = wins_and_losses(before, after)

    assert found == {"better": 2, "worse": 3, "same": 1}


def test_holm_done_by_hand() -> None:
    # 0.01 x 3 = 0.03; 0.03 x 2 = 0.06; 0.04 x 1, but not below the 0.06 before it
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.7, 0.6])) == pytest.approx([1, 1])
    assert holm(np.zeros(0)).tolist() == []


def test_what_has_no_p_value_does_not_count_in_holms_method() -> None:
    found = holm(np.array([np.nan, 0.01, 0.04]))

    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.04])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_his_procedure_rejects(seed: int) -> None:
    p_values = np.random.default_rng(seed).random(12) ** 4

    rejected = set()
    for step, number in enumerate(np.argsort(p_values)):
        if p_values[number] > 0.05 / (12 - step):
            break
        rejected.add(number)

    assert 0 < len(rejected) < 12
    assert set(np.flatnonzero(holm(p_values) <= 0.05)) == rejected


def sliced(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Values of 5 queries of each of 60 pictures; those of cats gain, those of dogs do not; birds are few."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(60), 5)
    kind = np.asarray(["cat"] * 20 + ["dog"] * 30 + ["bird"] * 3 + [""] * 7)[owner]
    before = rng.random(300)
    after = before + 0.2 * rng.standard_normal(300) + np.where(kind == "cat", 0.3, 0)
    return before, after, owner, kind.tolist()


def test_slices_have_their_own_means_and_intervals_and_corrected_p_values() -> None:
    before, after, owner, kind = sliced()

    dog, cat = effect_by_slice(before, after, owner, {"label": kind}, resamples=999)

    assert [(found.tag, found.value, found.queries) for found in (dog, cat)] == [
        ("label", "dog", 150),
        ("label", "cat", 100),
    ]
    for found in (dog, cat):
        rows = [row for row, value in enumerate(kind) if value == found.value]
        alone = paired_difference({"x": before[rows]}, {"x": after[rows]}, owner[rows])["x"]
        assert (found.before, found.after) == pytest.approx((before[rows].mean(), after[rows].mean()))
        # Other draws: of all pictures, not of the slice's alone. The intervals are about 0.06 and 0.05 wide.
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.01)
        if found is dog:  # the larger p-value is as it is
            assert found.p_value == pytest.approx(alone.p_value, abs=0.05)
            assert found.p_value > 0.05
    assert cat.low is not None
    assert cat.low > 0.2
    assert cat.p_value == pytest.approx(2 / 1000)  # 1 of 1,000, times two slices


def test_small_slices_and_queries_without_tag_or_value_are_left_out() -> None:
    before, after, owner, kind = sliced()
    undefined = after.copy()
    undefined[:7] = np.nan  # seven queries of cats

    everything = effect_by_slice(before, after, owner, {"label": kind}, smallest=15, resamples=99)
    fewer = effect_by_slice(before, undefined, owner, {"label": kind}, resamples=99)

    assert [(found.value, found.queries) for found in everything] == [("dog", 150), ("cat", 100), ("bird", 15)]
    assert [(found.value, found.queries) for found in fewer] == [("dog", 150), ("cat", 93)]
    assert fewer[1].before == pytest.approx(before[7:100].mean())


def test_of_many_values_the_largest_slices_are_shown_tag_by_tag() -> None:
    before, after, owner, kind = sliced()
    many = [f"value {number % 12}" for number in range(300)]

    found = effect_by_slice(before, after, owner, {"many": many, "label": kind}, most=2, resamples=99)

    assert [(one.tag, one.value) for one in found] == [
        ("many", "value 0"),
        ("many", "value 1"),
        ("label", "dog"),
        ("label", "cat"),
    ]


def test_a_slice_of_one_picture_has_means_but_no_interval() -> None:
    owner = np.repeat([0, 1], 25)
    tags = {"picture": ["first"] * 25 + ["second"] * 25}

    found = effect_by_slice(np.zeros(50), np.ones(50), owner, tags, resamples=99)

    assert [(one.before, one.after, one.low, one.high, one.p_value) for one in found] == [(0, 1, None, None, None)] * 2


def test_without_tags_there_are_no_slices() -> None:
    before, after, owner, _ = sliced()
    assert effect_by_slice(before, after, owner, {}) == []
    assert effect_by_slice(before, after, owner, {"label": [""] * 300}) == []


def test_captions_are_tagged_by_their_number_of_words() -> None:
    texts = [" ".join(["word"] * words) for words in (0, 1, 5, 6, 10, 11, 20, 21, 300)]

    assert caption_length(texts) == [
        "",
        "1-5 words",
        "1-5 words",
        "6-10 words",
        "6-10 words",
        "11-20 words",
        "11-20 words",
        "over 20 words",
        "over 20 words",
    ]
    assert caption_length(["  a   red-brown\tdog. \n"]) == ["1-5 words"]
