"""The rank of every held-out query, kept with the run: by it runs are compared, and anyone can look further.

`report/ranks.npz` has int32 (queries,) of the kinds `text_to_image`, `image_to_text` and, for labelled data, `zero_shot`; of
pairs of texts of the kinds `document_to_query` and `query_to_document`, of pairs of pictures `match_to_picture` and
`picture_to_match`, of single items `picture_to_picture` or `text_to_text`:

KIND_after      rank of the best right answer, from 1, with the run's model; of the right class for `zero_shot`
KIND_before     the same before training, or with the baseline, if there is one
KIND_picture    number of the query's picture, or text in its place, among the held-out ones
"""

import io
from collections.abc import Mapping

import numpy as np

from attune import metrics
from attune.kinds import ALL_DIRECTIONS

FILE = "report/ranks.npz"
KINDS = (*ALL_DIRECTIONS, "zero_shot")

Ranks = Mapping[str, np.ndarray]


def pack(ranks: Ranks) -> bytes:
    """The file's content."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: values.astype(np.int32) for name, values in ranks.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """The ranks in a file's content; nothing but numbers is ever read."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def query_values(ranks: Ranks) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """By kind, what each query counts for each metric of the headline with the run's model, and each query's picture."""
    return {
        kind: ({f"{kind}_{name}": value for name, value in _values(kind, ranks).items()}, ranks[f"{kind}_picture"])
        for kind in KINDS
        if f"{kind}_after" in ranks
    }


def _values(kind: str, ranks: Ranks) -> dict[str, np.ndarray]:
    rank = ranks[f"{kind}_after"]
    if kind == "zero_shot":
        return {f"acc{k}": (rank <= k).astype(np.float64) for k in (1, 5)}
    return metrics.query_values(rank)
