import numpy as np
import pytest

from attune.evaluation.tables import Figures, tables

HITS = np.asarray([1.0, 0.0, 1.0, 1.0])
BETTER = np.asarray([1.0, 1.0, 1.0, 1.0])
PICTURES = np.asarray([0, 0, 1, 2])


def figures(values: np.ndarray, median: float) -> Figures:
    return Figures("name", "Title", "What it means.", [({"hit": values}, PICTURES)], {"median_rank": median})


def test_means_have_an_interval_and_totals_have_none() -> None:
    [section] = tables([figures(HITS, 4.0)], [figures(BETTER, 2.0)])

    hit, median = section.rows
    assert (hit.before, hit.after) == (0.75, 1.0)
    assert hit.low is not None
    assert hit.high is not None
    assert hit.low <= 0.25 <= hit.high
    assert (median.before, median.after, median.low, median.p_value) == (4.0, 2.0, None, None)
    assert (section.name, section.title, section.definition) == ("name", "Title", "What it means.")


def test_a_model_alone_has_one_column_with_the_interval_of_each_mean() -> None:
    [section] = tables(None, [figures(HITS, 4.0)])

    assert [(row.before, row.after) for row in section.rows] == [(None, 0.75), (None, 4.0)]
    # Pictures 0, 1 and 2 have hits 1 of 2, 1 of 1 and 1 of 1: of 27 draws one is all of picture 0, with a mean of 1/2, and
    # 8 have none of it, with a mean of 1. That is 4 % and 30 %, more than 2.5 % at either end.
    assert [(row.after_low, row.after_high) for row in section.rows] == [(0.5, 1.0), (None, None)]


def test_the_interval_of_a_model_alone_does_not_pass_for_that_of_a_difference() -> None:
    [alone], [both] = tables(None, [figures(HITS, 4.0)]), tables([figures(HITS, 4.0)], [figures(BETTER, 2.0)])

    assert {(row.low, row.high, row.p_value, row.difference, row.verdict) for row in alone.rows} == {
        (None, None, None, "", "")
    }
    assert {(row.after_low, row.after_high, row.interval) for row in both.rows} == {(None, None, "")}


def test_queries_without_a_value_do_not_count_and_a_figure_without_any_is_none() -> None:
    some, none = np.asarray([1.0, np.nan, 0.0, np.nan]), np.full(4, np.nan)

    [one], [other] = (
        tables([figures(some, np.nan)], [figures(some, 1.0)]),
        tables([figures(none, 1.0)], [figures(none, 1.0)]),
    )

    assert one.rows[0].after == 0.5
    assert one.rows[1].before is None
    assert (other.rows[0].before, other.rows[0].after, other.rows[0].low) == (None, None, None)


@pytest.mark.parametrize("count", [0, 2])
def test_both_models_have_the_same_tables(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        tables([figures(HITS, 1.0)] * count, [figures(HITS, 1.0)])
