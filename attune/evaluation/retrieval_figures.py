"""How well a model finds captions by pictures and pictures by captions, in four terms: textbooks' and three others'."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from attune.evaluation import modes
from attune.evaluation.embeddings import shortened
from attune.evaluation.measure import Measurement, clusters_of
from attune.evaluation.places import places
from attune.evaluation.ranking import ranks
from attune.evaluation.relevance import from_owner
from attune.evaluation.retrieval import figures, query_values
from attune.evaluation.tables import Figures
from attune.kinds import IMAGE
from attune.metrics import DIRECTIONS
from attune.metrics import query_values as headline_values

T = TypeVar("T")

TEXTBOOK = (
    "All right answers count, in the terms of textbooks: recall@k is the share of a query's right answers among the first "
    "k; the headline's recall@k is hit@k here. Wrong answers that tie with a right one stand before it; tie_rate is "
    "the share of queries where that happens."
)


def headline(found: Measurement, image_of_text: np.ndarray) -> Figures:
    """Recall@1, 5 and 10 and MRR of both directions, as CLIP papers define them.

    Args:
        found: a model's ranks.
        image_of_text: the picture of each caption, int64 (captions,).
    """
    clusters = clusters_of(image_of_text, found.kind.directions)
    values = [
        (_named(direction, headline_values(found.ranks[direction])), clusters[direction])
        for direction in found.kind.directions
    ]
    return Figures("headline", "Retrieval", "As CLIP papers define it.", values)


def retention(found: Measurement, image_of_text: np.ndarray) -> Figures:
    """The headline's figures on the retention data; arguments as for `headline`."""
    items = f"{len(found.images)} {found.kind.items}"
    definition = f"The headline's figures on retention_data: {items} that the model must stay good at."
    return Figures("retention", "Retention", definition, headline(found, image_of_text).values)


def matryoshka(found: Measurement, image_of_text: np.ndarray, dims: Sequence[int]) -> Figures:
    """The headline's figures of the first numbers of the embeddings alone.

    Args:
        found: a model's embeddings of the held-out part.
        image_of_text: the picture of each caption, int64 (captions,).
        dims: how many numbers, below those that there are.
    """
    definition = (
        "The headline's figures with the first numbers of each embedding alone, scaled to unit length again; the whole "
        f"embedding has {found.images.shape[1]}."
    )
    clusters = clusters_of(image_of_text, found.kind.directions)
    values = []
    for dim in dims:
        placed = ranks(shortened(found.images, dim), shortened(found.texts, dim), image_of_text)
        for direction, of_pictures in zip(found.kind.directions, DIRECTIONS, strict=True):
            named = _named(direction, headline_values(placed[of_pictures]))
            values.append(({f"{name}_dim_{dim}": value for name, value in named.items()}, clusters[direction]))
    return Figures("matryoshka", "Shorter embeddings", definition, values)


def retrieval_figures(found: Measurement, image_of_text: np.ndarray, device: str = "cpu") -> list[Figures]:
    """The tables `retrieval`, `clip_benchmark`, `finetuner` and `imageclef`; without captions the first and the third.

    Args:
        found: a model's embeddings of the held-out part.
        image_of_text: the picture of each caption, int64 (captions,).
        device: torch device that ranks.
    """
    textbook, peer, finetuner = [], [], []
    totals: dict[str, float] = {}
    relevance, clusters = from_owner(image_of_text, len(found.images)), clusters_of(image_of_text)
    sides = {"text_to_image": (found.texts, found.images), "image_to_text": (found.images, found.texts)}
    for direction, of_pictures in zip(found.kind.directions, DIRECTIONS, strict=True):
        placed = places(*sides[of_pictures], relevance[of_pictures], device=device)
        values = query_values(placed)
        del values["rank"]  # its mean and median are among the totals
        counted = figures(placed)
        del counted["queries_without_answer"]  # every caption has its picture
        totals |= _named(direction, counted)
        textbook.append((_named(direction, values), clusters[of_pictures]))
        peer.append((modes.clip_benchmark(placed, of_pictures), clusters[of_pictures]))
        finetuner.append((_named(direction, modes.finetuner(placed)), clusters[of_pictures]))
    tables = [
        Figures("retrieval", "Retrieval, all right answers", TEXTBOOK, textbook, totals),
        Figures("finetuner", "In Jina Finetuner's terms", modes.FINETUNER, finetuner),
    ]
    if found.kind is not IMAGE:
        return tables
    first = np.unique(image_of_text, return_index=True)[1]
    batched = {f"text_to_image_mrr@{modes.BATCH}": modes.imageclef(found.texts[first], found.images)}
    imageclef = f"{modes.IMAGECLEF} Each picture is there with its first caption."
    return [
        tables[0],
        Figures("clip_benchmark", "In CLIP_benchmark's terms", modes.CLIP_BENCHMARK, peer),
        tables[1],
        Figures("imageclef", "In ImageCLEF's terms", imageclef, [(batched, np.arange(len(found.images)))]),
    ]


def _named(direction: str, values: Mapping[str, T]) -> dict[str, T]:
    return {f"{direction}_{name}": value for name, value in values.items()}
