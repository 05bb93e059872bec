import numpy as np
import pytest

from attune.errors import DataError
from attune.evaluation.relevance import from_labels, from_owner, from_pairs


def pairs(found) -> list[tuple[int, int]]:
    return list(zip(found.query.tolist(), found.answer.tolist(), strict=True))


def test_captions_and_pictures_are_right_for_each_other_in_both_directions() -> None:
    found = from_owner(np.array([2, 0, 2]), images=4)

    assert pairs(found["text_to_image"]) == [(0, 2), (1, 0), (2, 2)]
    assert pairs(found["image_to_text"]) == [(0, 1), (2, 0), (2, 2)]  # pictures 1 and 3 have no text
    assert (found["text_to_image"].queries, found["text_to_image"].answers) == (3, 4)
    assert (found["image_to_text"].queries, found["image_to_text"].answers) == (4, 3)
    assert found["image_to_text"].grade.tolist() == [1, 1, 1]


@pytest.mark.parametrize("exclude_self", [False, True])
def test_answers_with_the_query_s_label_are_right(exclude_self: bool) -> None:
    labels = ["", "a", "b", "a", "", "c", "a", "b"]

    found = from_labels(labels, labels, exclude_self)

    assert pairs(found) == [
        (query, answer)
        for query in range(8)
        for answer in range(8)
        if labels[query] and labels[query] == labels[answer] and not (exclude_self and query == answer)
    ]


def test_queries_and_answers_may_have_different_labels() -> None:
    found = from_labels(["x", "b", "a"], ["b", "a", "y", "b"])

    assert pairs(found) == [(1, 0), (1, 3), (2, 1)]
    assert (found.queries, found.answers) == (3, 4)


def test_pairs_are_sorted_and_keep_their_grades() -> None:
    found = from_pairs([1, 0, 1], [0, 2, 1], queries=2, answers=3, grade=[0.5, 2, 1])

    assert pairs(found) == [(0, 2), (1, 0), (1, 1)]
    assert found.grade.tolist() == [2, 0.5, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0, 3], [0, 0], 3, 2), "query must be a row from 0 to 2, but pair 1 has 3; 1 of 2 pairs are bad"),
        (([0, 1], [0, -1], 3, 2), "answer must be a row from 0 to 1, but pair 1 has -1"),
        (([0, 1, 0], [1, 0, 1], 3, 2), "the pair of query 0 and answer 1 is named more than once"),
        (([0, 1], [0, 0], 3, 2, [1, 0]), "a grade must be a number above 0; leave wrong answers out, but pair 1 has 0.0"),
        (([0, 1], [0, 0], 3, 2, [float("nan"), 1]), "pair 0 has nan"),
        (([0, 1], [0, 0], 3, 2, [float("inf"), 1]), "pair 0 has inf"),
        (([0, 1], [0], 3, 2), "there are 2, 1 and 2. Give as many of each"),
        (([], [], 3, 2), "none of the 3 queries has a right answer among the 2 answers"),
    ],
)
def test_bad_pairs_are_refused_with_the_value_that_is_bad(arguments: tuple, said: str) -> None:
    with pytest.raises(DataError, match=said.replace(".", r"\.")):
        from_pairs(*arguments)


def test_a_text_of_no_picture_is_refused() -> None:
    with pytest.raises(DataError, match="answer must be a row from 0 to 1, but pair 1 has 2"):
        from_owner(np.array([0, 2]), images=2)


def test_items_that_are_all_alone_have_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="none of the 3 queries has a right answer"):
        from_labels(["a", "b", ""], ["a", "b", ""], exclude_self=True)


def test_leaving_out_oneself_needs_the_same_items() -> None:
    with pytest.raises(DataError, match="2 query labels and 3 answer labels"):
        from_labels(["a", "b"], ["a", "b", "a"], exclude_self=True)
