"""Which rows meet in a batch."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def epoch_batches(
    groups: Sequence[str], batch_size: int, rng: np.random.Generator, rows_per_epoch: int | None = None
) -> list[np.ndarray]:
    """One pass over the rows in random batches, of equal size, in which no group appears twice.

    Every other row of a batch is a negative, so two rows of one group must not meet. The rows are laid out group by
    group in random order and dealt like cards to the batches: a group's rows land in different batches. A group with
    more rows than there are batches sends a random choice of them, as many as there are batches.

    Args:
        groups: one name per row.
        batch_size: the most rows in a batch, at least 2.
        rng: source of the order.
        rows_per_epoch: how many rows, drawn anew each time, an epoch passes over; all if there are not as many. Short
            epochs over much data are how the ImageCLEF 2017 captions were learnt
            (github.com/elsevierlabs-os/clip-image-search). There rows may come twice; here they do not, since equal
            rows in a batch are false negatives.

    Returns:
        Int64 arrays of row numbers; sizes differ by at most one.

    Example:
        Rows 0 and 1 share a group; with `batch_size=2` two batches such as `[0, 2]` and `[3, 1]` come out.
    """
    if rows_per_epoch is not None and rows_per_epoch < len(groups):
        drawn = rng.choice(len(groups), size=rows_per_epoch, replace=False)
        return [drawn[batch] for batch in epoch_batches([groups[row] for row in drawn], batch_size, rng)]
    members = members_of(groups)
    count = number_of_batches(len(groups), batch_size)
    names = list(members)
    deck: list[int] = []
    for index in rng.permutation(len(names)):
        rows = members[names[index]]
        deck += [rows[i] for i in rng.permutation(len(rows))[:count]]
    return [np.asarray(deck[start::count], dtype=np.int64) for start in range(count)]


def hard_batches(
    embeddings: np.ndarray,
    groups: Sequence[str],
    batch_size: int,
    rng: np.random.Generator,
    cluster_size: int = 16,
    rows_per_epoch: int | None = None,
) -> list[np.ndarray]:
    """One pass over the rows in batches of clusters of similar rows: most rows meet those they are easily mistaken for.

    To order a whole epoch so that hard negatives meet, without a search for each row, is the idea of global contrastive
    batch sampling (Sachidananda et al. 2022, arXiv:2210.12874). The order here is a plain one: clusters of equal size,
    made by `bisect`, in random order. A cluster is cut where a batch ends.

    The rows come in turns, first one random row of each group, then a second one of those groups that have one, and so
    on, and each turn is clustered by itself: so that the rows of a group, which are similar, do not crowd one batch.
    Where two of them still meet, at the end of a turn, one goes to the smallest batch without its group.

    Args:
        embeddings: float32 (rows, dim), unit length; of pictures, say.
        groups: one name per row.
        batch_size: the most rows in a batch, at least 2.
        rng: source of the order and of the clusters, which differ a little each time.
        cluster_size: the most rows in a cluster; the larger, the harder a batch, up to `batch_size`.
        rows_per_epoch: as in `epoch_batches`.

    Returns:
        Int64 arrays of row numbers: as many as `epoch_batches` gives, sizes differ by at most one, no group twice in
        one, no row twice at all, and as many rows of each group.
    """
    if rows_per_epoch is not None and rows_per_epoch < len(groups):
        drawn = rng.choice(len(groups), size=rows_per_epoch, replace=False)
        chosen = [groups[row] for row in drawn]
        return [drawn[batch] for batch in hard_batches(embeddings[drawn], chosen, batch_size, rng, cluster_size)]
    count = number_of_batches(len(groups), batch_size)
    turns: dict[int, list[int]] = defaultdict(list)
    for rows in members_of(groups).values():
        for turn, index in enumerate(rng.permutation(len(rows))[:count]):
            turns[turn].append(rows[index])
    deck: list[int] = []
    for chosen_rows in turns.values():
        clusters = bisect(embeddings, np.asarray(chosen_rows, dtype=np.int64), cluster_size, rng)
        deck += [row for index in rng.permutation(len(clusters)) for row in clusters[index].tolist()]
    batches = _separated(np.array_split(np.asarray(deck, dtype=np.int64), count), groups)
    return [np.asarray(batches[index], dtype=np.int64) for index in rng.permutation(count)]


def bisect(embeddings: np.ndarray, rows: np.ndarray, cluster_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Clusters of similar rows, of sizes that differ by at most one.

    Rows are halved along the direction in which they differ most until the parts are small enough: principal direction
    divisive partitioning (Boley 1998, Data Mining and Knowledge Discovery 2:325-344), but cut at the middle rank and
    not at the mean, so that the parts are equal. A few power iterations from a random start find the direction, nearly.

    Args:
        embeddings: float32 (all rows, dim).
        rows: int64, the rows to cluster.
        cluster_size: the most rows in a cluster, at least 1.
        rng: source of the starts.

    Returns:
        Int64 arrays that hold each of `rows` once.
    """
    return _halves(embeddings, rows, -(-len(rows) // cluster_size), rng)


def _halves(embeddings: np.ndarray, rows: np.ndarray, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    if parts <= 1:
        return [rows]
    centred = embeddings[rows] - embeddings[rows].mean(0)
    direction = rng.standard_normal(centred.shape[1]).astype(np.float32)
    for _ in range(4):
        direction = (centred @ direction) @ centred
        direction /= max(float(np.linalg.norm(direction)), 1e-12)  # equal rows have no direction: any order will do
    order = rows[np.argsort(centred @ direction, kind="stable")]
    left = parts // 2
    cut = left * (len(rows) // parts) + min(left, len(rows) % parts)  # `left` of `parts` sizes that differ by one
    return [*_halves(embeddings, order[:cut], left, rng), *_halves(embeddings, order[cut:], parts - left, rng)]


def _separated(batches: Sequence[np.ndarray], groups: Sequence[str]) -> list[list[int]]:
    """The batches with rows moved, so that no group is twice in one and sizes differ by at most one.

    There is always room: no group has more rows than there are batches, and of two batches the larger one has a group
    that the smaller one lacks.
    """
    members: list[dict[str, int]] = []  # of each batch: its groups, and the row of each
    homeless = []
    for batch in batches:
        members.append({})
        for row in batch.tolist():
            if groups[row] in members[-1]:
                homeless.append(row)
            else:
                members[-1][groups[row]] = row
    for row in homeless:
        min((each for each in members if groups[row] not in each), key=len)[groups[row]] = row
    while len(large := max(members, key=len)) > len(small := min(members, key=len)) + 1:
        group = next(group for group in large if group not in small)
        small[group] = large.pop(group)
    return [list(each.values()) for each in members]


def number_of_batches(rows: int, batch_size: int) -> int:
    """Of a pass over so many rows, at least 1."""
    return max(1, -(-rows // batch_size))


def members_of(groups: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each group."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    return members
