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


def test_without_a_model_before_there_is_one_column() -> None:
    [section] = tables(None, [figures(HITS, 4.0)])

    assert [(row.before, row.after, row.low) for row in section.rows] == [(None, 0.75, None), (None, 4.0, None)]


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
