"""The tables of an evaluation: metrics before and after with how sure each difference is, one definition a table.

Of one model alone: its metrics, with how sure each is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attune.evaluation.bootstrap import interval, paired_difference
from attune.evaluation.comparison import Row, Section

Values = Mapping[str, np.ndarray]
"""Of each query, by metric: float64 (queries,)."""


@dataclass(frozen=True)
class Figures:
    """One table's figures of one model.

    Attributes:
        name: of the table, for code.
        title: for people.
        definition: what the figures mean, and by whose definition.
        values: of queries, with the picture of each: once for each direction, or once for all.
        totals: what is no mean over queries, such as a median: it gets no interval.
    """

    name: str
    title: str
    definition: str
    values: Sequence[tuple[Values, np.ndarray]]
    totals: Mapping[str, float] = field(default_factory=dict)


def tables(before: Sequence[Figures] | None, after: list[Figures]) -> list[Section]:
    """A table for each of the figures of a model, beside those of the model before if there is one."""
    return [
        Section(
            name=new.name,
            title=new.title,
            definition=new.definition,
            rows=[
                *(
                    row
                    for number, (values, clusters) in enumerate(new.values)
                    for row in query_rows(old.values[number][0] if old else None, values, clusters)
                ),
                *figure_rows(old.totals if old else None, new.totals),
            ],
        )
        for old, new in zip(before if before is not None else [None] * len(after), after, strict=True)
    ]


def query_rows(before: Values | None, after: Values, clusters: np.ndarray) -> list[Row]:
    """A row for each metric: its means over queries, and interval and p-value of their difference.

    Of one model alone, its mean and the interval of that.

    Args:
        before: values of each query; None if there is nothing to compare with.
        after: of the same queries with the other model.
        clusters: the picture of each query: captions of one picture are not independent.
    """
    rows = figure_rows(_means(before) if before is not None else None, _means(after))
    sure: dict[str, dict[str, float]]
    if before is None:
        sure = {name: {"after_low": low, "after_high": high} for name, (low, high) in interval(after, clusters).items()}
    else:
        sure = {name: found._asdict() for name, found in paired_difference(before, after, clusters).items()}
    return [row.model_copy(update={name: _defined(value) for name, value in sure[row.metric].items()}) for row in rows]


def figure_rows(before: Mapping[str, float] | None, after: Mapping[str, float]) -> list[Row]:
    """A row for each figure, without an interval."""
    return [
        Row(metric=name, before=_defined(before[name]) if before is not None else None, after=_defined(value))
        for name, value in after.items()
    ]


def _means(values: Values) -> dict[str, float]:
    """By metric; queries without a value do not count, and without any there is no figure."""
    there = {name: each[~np.isnan(each)] for name, each in values.items()}
    return {name: float(each.mean()) if len(each) else math.nan for name, each in there.items()}


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
