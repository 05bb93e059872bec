"""What embeddings must be, wherever figures are computed of them."""

from collections.abc import Callable

import numpy as np
import pytest

from attune.errors import EvaluationError
from attune.evaluation.embeddings import checked
from attune.evaluation.neighbours import neighbours
from attune.evaluation.places import places
from attune.evaluation.ranking import ranks
from attune.evaluation.relevance import from_pairs
from attune.evaluation.top_k import top_k
from attune.metrics import DIRECTIONS
from tests.attune.test_metrics import random_problem

UNIT = np.eye(4, dtype=np.float32)

FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "ranks": lambda one, other: ranks(one, other, np.arange(len(other))),
    "places": lambda one, other: places(one, other, from_pairs([0], [0], 4, 4)),
    "top_k": lambda one, other: top_k(one, other, 1),
    "neighbours": lambda one, other: neighbours(other, np.zeros(len(other), dtype=np.int64), one, 1),
}

BAD = {
    "not-unit": (2 * UNIT, r"4 of 4 embeddings are not of unit length; the first is row 0, of length 2\. Divide each by"),
    "half-unit": (UNIT * [[1], [1], [1.002], [1]], r"1 of 4 embeddings .*; the first is row 2, of length 1\.002"),
    "zero": (UNIT * [[1], [0], [1], [1]], "the first is row 1, of length 0"),
    "infinite": (np.where(UNIT == 1, np.inf, 0), "the first is row 0, of length inf"),
    "beyond-float32": (np.eye(4) * 1e300, "the first is row 0, of length inf"),
    "no-rows": (UNIT[:0], r"at least one, but they are float32 of shape \(0, 4\)"),
    "one-row-flat": (UNIT[0], r"float32 of shape \(4,\)\. Give float32 \(rows, dim\)"),
    "words": (np.asarray([["a", "b"]]), r"table of numbers .* but they are <U1 of shape \(1, 2\)"),
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(("bad", "said"), BAD.values(), ids=BAD)
def test_embeddings_that_give_wrong_figures_are_refused(figure: str, bad: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        FIGURES[figure](bad, UNIT)


@pytest.mark.parametrize("figure", FIGURES)
def test_embeddings_of_two_models_are_refused(figure: str) -> None:
    with pytest.raises(
        EvaluationError, match=r"as many dimensions, but \w+ have \d and \w+ have \d\. Take both from one model"
    ):
        FIGURES[figure](UNIT, np.eye(4, 5, dtype=np.float32))


def test_other_numbers_are_taken_as_float32() -> None:
    images, texts, owner = random_problem(0)
    expected = ranks(images, texts, owner)

    for kind in (np.float64, np.dtype(">f4")):
        found = ranks(images.astype(kind), texts[::-1].copy()[::-1], owner)
        assert {name: found[name].tolist() for name in DIRECTIONS} == {name: expected[name].tolist() for name in DIRECTIONS}
    halved = ranks(images.astype(np.float16), texts.astype(np.float16), owner)  # of unit length but for its rounding
    assert np.mean(halved["text_to_image"] == expected["text_to_image"]) > 0.9


def test_float32_in_one_piece_is_not_copied() -> None:
    [found] = checked(images=UNIT)

    assert found is UNIT


def test_what_is_no_number_is_let_through_where_it_counts_against_the_model() -> None:
    broken = np.where(UNIT == 1, np.nan, UNIT)

    assert np.isnan(checked(images=broken)[0].diagonal()).all()
    with pytest.raises(EvaluationError, match="images: 4 of 4 embeddings are not of unit length; .* of length nan"):
        checked(broken=False, images=broken)
