"""Captions that speak of left and right, whose pictures must not be mirrored."""

import pytest

from attune.data.pairs import Pairs
from attune.data.sides import can_be_mirrored, speaks_of_sides
from attune.kinds import MATCH


@pytest.mark.parametrize(
    "text",
    [
        "a dog LEFT of a tree",
        "the right hand",
        "leftmost chair",
        "counterclockwise arrows button",
        "Hund links vom Baum",
        "die rechte Hand",
        "main gauche",
        "la mano derecha",
        "mano sinistra",
        "левая рука",
        "指向左的手",
        "右矢印",
        "बाएँ तीर",
    ],
)
def test_it_speaks_of_sides(text: str) -> None:
    assert speaks_of_sides(text)


@pytest.mark.parametrize("text", ["a bright lamp", "cleft", "a copyright sign", "ein Gelenk", "две собаки", "狗", ""])
def test_it_does_not(text: str) -> None:
    assert not speaks_of_sides(text)


def test_one_caption_or_negative_keeps_a_picture_as_it_is() -> None:
    captions = [["a dog", "a dog on the left"], ["a cat"], ["a cow"]]
    pairs = Pairs("", ["a", "b", "c"], captions, ["a", "b", "c"], negatives=[[], ["a right hand"], ["a bird"]])

    assert can_be_mirrored(pairs).tolist() == [False, False, True]
    assert can_be_mirrored(Pairs("", ["a"], [["left"]], ["a"], kind=MATCH)).tolist() == [True]  # a key, not a caption
