"""How well a model finds captions by pictures and pictures by captions, in four terms: textbooks' and three others'."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from attune.data.pairs import Pairs
from attune.evaluation import modes
from attune.evaluation.embeddings import shortened
from attune.evaluation.measure import Measurement, alike, image_of_text, measured, queries_of
from attune.evaluation.places import Places, places
from attune.evaluation.relevance import from_owner
from attune.evaluation.retrieval import figures, query_values
from attune.evaluation.tables import Figures
from attune.kinds import IMAGE
from attune.metrics import AT_R, DIRECTIONS
from attune.metrics import query_values as headline_values

T = TypeVar("T")

TEXTBOOK = (
    "All right answers count, in the terms of textbooks: recall@k is the share of a query's right answers among the first "
    "k; the headline's recall@k is hit@k here. Wrong answers that tie with a right one stand before it; tie_rate is "
    "the share of queries where that happens."
)


def headline(found: Measurement, pairs: Pairs) -> Figures:
    """Recall@1, 5 and 10 and MRR of both directions, as CLIP papers define them.

    Args:
        found: a model's ranks.
        pairs: what it was measured on.
    """
    values = [
        (_named(direction, headline_values(found.ranks[direction])), rows) for direction, rows in queries_of(pairs).items()
    ]
    if found.at_r is not None:
        values[0][0][f"{pairs.kind.asked}_{AT_R}"] = found.at_r
    return Figures("headline", "Retrieval", "As CLIP papers define it.", values)


def retention(found: Measurement, pairs: Pairs) -> Figures:
    """The headline's figures on the retention data; arguments as for `headline`."""
    items = f"{len(pairs)} {pairs.kind.items}"
    definition = f"The headline's figures on retention_data: {items} that the model must stay good at."
    return Figures("retention", "Retention", definition, headline(found, pairs).values)


def matryoshka(found: Measurement, pairs: Pairs, dims: Sequence[int]) -> Figures:
    """The headline's figures of the first numbers of the embeddings alone.

    Args:
        found: a model's embeddings of the held-out part.
        pairs: that part.
        dims: how many numbers, below those that there are.
    """
    definition = (
        "The headline's figures with the first numbers of each embedding alone, scaled to unit length again; the whole "
        f"embedding has {found.images.shape[1]}."
    )
    clusters = queries_of(pairs)
    values = []
    for dim in dims:
        shorter = measured(shortened(found.images, dim), shortened(found.texts, dim), pairs)
        for direction, placed in shorter.ranks.items():
            named = _named(direction, headline_values(placed))
            values.append(({f"{name}_dim_{dim}": value for name, value in named.items()}, clusters[direction]))
    return Figures("matryoshka", "Shorter embeddings", definition, values)


def retrieval_figures(found: Measurement, pairs: Pairs, device: str = "cpu") -> list[Figures]:
    """The tables `retrieval`, `clip_benchmark`, `finetuner` and `imageclef`; without captions the first and the third.

    Args:
        found: a model's embeddings of the held-out part.
        pairs: that part.
        device: torch device that ranks.
    """
    textbook, peer, finetuner = [], [], []
    totals: dict[str, float] = {}
    kind, clusters = pairs.kind, queries_of(pairs)
    for direction, placed in _placed(found, pairs, device):
        values = query_values(placed)
        del values["rank"]  # its mean and median are among the totals
        counted = figures(placed)
        del counted["queries_without_answer"]  # every caption has its picture, and others are no queries
        totals |= _named(direction, counted)
        rows, answered = clusters[direction], placed.right > 0
        textbook.append((_named(direction, {name: value[answered] for name, value in values.items()}), rows))
        in_finetuners = {name: value[answered] for name, value in modes.finetuner(placed).items()}
        finetuner.append((_named(direction, in_finetuners), rows))
        if kind is IMAGE:
            peer.append((modes.clip_benchmark(placed, direction), rows))
    tables = [
        Figures("retrieval", "Retrieval, all right answers", TEXTBOOK, textbook, totals),
        Figures("finetuner", "In Jina Finetuner's terms", modes.FINETUNER, finetuner),
    ]
    if kind is not IMAGE:
        return tables
    first = np.unique(image_of_text(pairs), return_index=True)[1]
    batched = {f"text_to_image_mrr@{modes.BATCH}": modes.imageclef(found.texts[first], found.images)}
    imageclef = f"{modes.IMAGECLEF} Each picture is there with its first caption."
    return [
        tables[0],
        Figures("clip_benchmark", "In CLIP_benchmark's terms", modes.CLIP_BENCHMARK, peer),
        tables[1],
        Figures("imageclef", "In ImageCLEF's terms", imageclef, [(batched, np.arange(len(found.images)))]),
    ]


def _placed(found: Measurement, pairs: Pairs, device: str) -> Iterator[tuple[str, Places]]:
    """Where all right answers stand, direction by direction."""
    if pairs.kind.is_single:
        yield pairs.kind.asked, places(found.images, found.images, alike(pairs), exclude_self=True, device=device)
        return
    relevance = from_owner(image_of_text(pairs), len(pairs))
    sides = ((found.texts, found.images), (found.images, found.texts))
    for direction, of_pictures, (queries, answers) in zip(pairs.kind.directions, DIRECTIONS, sides, strict=True):
        yield direction, places(queries, answers, relevance[of_pictures], device=device)


def _named(direction: str, values: Mapping[str, T]) -> dict[str, T]:
    return {f"{direction}_{name}": value for name, value in values.items()}
