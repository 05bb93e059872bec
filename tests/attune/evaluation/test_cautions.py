"""What is said of labels that are no classes, of probes that are missing, and of data that figures tell little of."""

from collections.abc import Sequence

import pytest

from attune.data.pairs import Pairs
from attune.data.parts import Parts
from attune.evaluation.cautions import cautions, shared_captions
from attune.evaluation.classes import find_classes, why_no_classes, why_no_probe
from attune.evaluation.comparison import Row


def pairs(labels: Sequence[str] = (), captions: Sequence[list[str]] | None = None) -> Pairs:
    """As many pictures as labels, each with a caption of its own unless others are given."""
    names = [f"picture {number}" for number in range(len(labels))]
    return Pairs("f", names, list(captions) if captions else [[name] for name in names], names, list(labels))


def parts(labels: Sequence[str], train: Sequence[str] = (), validation: Sequence[str] = ()) -> Parts:
    return Parts(pairs(train), pairs(validation), pairs(labels))


def names(count: int, pictures: int) -> list[str]:
    """So many different labels on so many pictures."""
    return [f"thing {number % count}" for number in range(pictures)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (names(61, 120), "61 labels on 120 labelled pictures: more than half, taken for names and not for classes, so"),
        (["", *names(953, 1896)], "953 labels on 1896 labelled pictures: more than half"),
        (["Fire_Truck", "fire truck"], "1 label on 2 labelled pictures: there is nothing to tell apart, so nothing is"),
        (["", "cat"], "1 label on 1 labelled picture: there is nothing to tell apart"),
    ],
    ids="more-than-half with-gaps one one-picture".split(),
)
def test_labels_that_are_no_classes_are_warned_of(labels: list[str], said: str) -> None:
    assert find_classes(parts(labels), seed=0) is None
    assert why_no_classes(parts(labels)).startswith(said)
    assert cautions(parts(labels), [])[-1] == why_no_classes(parts(labels))


@pytest.mark.parametrize("labels", [names(60, 120), [""] * 30], ids=["classes", "none"])
def test_nothing_is_said_of_labels_that_are_classes_or_that_are_not_there(labels: list[str]) -> None:
    assert (find_classes(parts(labels), seed=0) is None) == (not any(labels))
    assert cautions(parts(labels), []) == []


@pytest.mark.parametrize(
    ("train", "validation", "why"),
    [
        ([], [], "nothing was trained"),
        (["", ""], ["cat"], "no labels in the training part"),
        (["cat"], [""], "no labels in the validation part"),
        ([""], [""], "no labels in the training and the validation part"),
        (["cat", ""], ["dog"], ""),
    ],
)
def test_why_there_is_no_probe(train: list[str], validation: list[str], why: str) -> None:
    data = parts(["cat", "dog"] * 2, train, validation)
    classes = find_classes(data, seed=0)

    assert classes is not None
    assert why_no_probe(classes, data) == why


def test_few_pictures_are_warned_of() -> None:
    [said] = cautions(parts([""] * 19), [])

    assert said.startswith("Too few pictures to judge: 19 are held out. With fewer than 20")
    assert cautions(parts([""] * 20), []) == []


@pytest.mark.parametrize(
    ("captions", "count"),
    [
        ([["A dog.", "a dog"], ["a dog", "Rex"], ["a cat", "a cat"]], 3),
        ([["a dog", "my dog"], ["a hound"]], 0),
        ([["one"], ["one"], ["one"], ["two"]], 3),
    ],
)
def test_captions_of_several_pictures_are_counted(captions: list[list[str]], count: int) -> None:
    assert shared_captions(captions) == count


def test_captions_of_several_pictures_are_warned_of() -> None:
    same = [["a bird"], ["A bird!"], *([f"bird {number}"] for number in range(18))]
    data = Parts(pairs(), pairs(), pairs([""] * 20, same))

    [said] = cautions(data, [])

    assert said.startswith("Held-out captions that other held-out pictures have too: 2 of 20. No model can tell which")


def test_many_ties_are_warned_of_in_one_sentence() -> None:
    rates = {"text_to_image": 0.25, "image_to_text": 1.0}
    rows = [Row(metric=f"{direction}_tie_rate", after=rate) for direction, rate in rates.items()]
    data = parts([""] * 20)

    [both] = cautions(data, [*rows, Row(metric="text_to_image_mrr", after=0.5)])
    [one] = cautions(data, [rows[1], Row(metric="text_to_image_tie_rate", before=0.5, after=0.1)])

    assert both.startswith(
        "In 25% of the queries from text to image and 100% of the queries from image to text a wrong answer"
    )
    assert one.startswith("In 100% of the queries from image to text a wrong answer scores exactly as high")
