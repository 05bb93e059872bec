"""All tables of an evaluation, of one model or of two beside each other."""

from collections.abc import Callable, Sequence

import numpy as np

from attune.data.parts import Parts
from attune.evaluation.class_figures import class_figures
from attune.evaluation.classes import Classes, why_no_probe
from attune.evaluation.comparison import Section
from attune.evaluation.correlation import correlation_section
from attune.evaluation.embeddings import shortened
from attune.evaluation.look import Look
from attune.evaluation.measure import Measurement
from attune.evaluation.retrieval_figures import headline, matryoshka, retention, retrieval_figures
from attune.evaluation.tables import Figures, tables
from attune.kinds import IMAGE


def sections(
    before: Look | None,
    after: Look,
    parts: Parts,
    classes: Classes | None,
    dims: Sequence[int],
    names: tuple[str, str],
    say: Callable[[str], None],
    device: str = "cpu",
) -> list[Section]:
    """Every table, the headline first.

    Args:
        before: what the one model makes of the data, if there is one.
        after: what the other does.
        parts: of the run's data.
        classes: of the data, if there are any.
        dims: lengths of shorter embeddings to measure; a baseline may be of fewer numbers than those.
        names: what the two models are called.
        say: is told what is being computed.
        device: torch device that ranks, fits and compares.
    """
    kind = parts.test.kind
    width = min(one.test.images.shape[1] for one in (before, after) if one)
    dims = [dim for dim in dims if dim < width]
    graded = parts.test.is_graded

    def figures(one: Look, name: str) -> list[Figures]:
        of_classes = ""
        if classes is not None:
            missing = why_no_probe(classes, parts)
            learnt = f"linear probe and neighbours from {len(classes.train)} {kind.items}"
            by_name = "by their names" if kind is IMAGE else "no zero-shot, which is for pictures with captions"
            of_classes = f"; {len(classes.names)} classes {by_name}, {f'no probe: {missing}' if missing else learnt}"
        say(f"figures, {name}: {'correlation with scores' if graded else 'retrieval'}{of_classes}")
        of_class = class_figures(one, classes, device) if classes else []
        if graded:
            return of_class
        return [
            headline(one.test, parts.test),
            *retrieval_figures(one.test, parts.test, device),
            *([matryoshka(one.test, parts.test, dims)] if dims else []),
            *of_class,
            *([retention(one.retention, parts.retention)] if one.retention and parts.retention else []),
        ]

    found = [figures(one, name) for one, name in zip((before, after), names, strict=True) if one]
    say(f"intervals, by bootstrap over {kind.items}")
    return [
        *(_correlations(before, after, parts, dims) if graded else []),
        *tables(found[0] if before else None, found[-1]),
    ]


def _correlations(before: Look | None, after: Look, parts: Parts, dims: Sequence[int]) -> list[Section]:
    """The tables of data whose captions have scores: the headline first, then of shorter embeddings and of retention."""

    def of(one: Measurement, dim: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return (one.images, one.texts) if dim is None else (shortened(one.images, dim), shortened(one.texts, dim))

    test = parts.test
    found = [
        correlation_section("headline", "Correlation with scores", of(before.test) if before else None, of(after.test), test)
    ]
    for dim in dims:
        was = of(before.test, dim) if before else None
        found.append(
            correlation_section(
                f"matryoshka_{dim}", f"The first {dim} numbers of embeddings", was, of(after.test, dim), test
            )
        )
    if after.retention and parts.retention:
        was = of(before.retention) if before and before.retention else None
        found.append(correlation_section("retention", "Retention", was, of(after.retention), parts.retention))
    return found
