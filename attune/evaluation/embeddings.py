"""What every figure of embeddings asks of them, looked at before anything is computed."""

import numpy as np

from attune.errors import EvaluationError

LENGTH = 1e-3
"""By how much an embedding's length may differ from 1: that of half-precision numbers does by less."""


def checked(broken: bool = True, **given: np.ndarray) -> list[np.ndarray]:
    """Embeddings of one model as float32; what is float32 and in one piece is not copied.

    Args:
        broken: whether embeddings that are no numbers (NaN), as a damaged model gives, may be among them.
        given: unit-length embeddings (rows, dim), by what they are called in messages.

    Raises:
        EvaluationError: if they are no tables of numbers with at least one row, if one is not of unit length within
            `LENGTH`, or if they are not of as many dimensions.
    """
    found = []
    for name, rows in given.items():
        table = np.asarray(rows)
        if table.dtype.kind not in "fiu" or table.ndim != 2 or 0 in table.shape:
            raise EvaluationError(
                f"{name} must be a table of numbers with an embedding in each row, at least one, but they are {table.dtype} "
                f"of shape {table.shape}. Give float32 (rows, dim)"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is of infinite length
            table = np.ascontiguousarray(table, dtype=np.float32)
            lengths = np.sqrt(np.einsum("nd,nd->n", table, table))  # n: rows, d: dimensions
        wrong = np.flatnonzero((np.abs(lengths - 1) > LENGTH) | (np.isnan(lengths) & (not broken)))
        if len(wrong):
            raise EvaluationError(
                f"{name}: {len(wrong)} of {len(table)} embeddings are not of unit length; the first is row {wrong[0]}, of "
                f"length {lengths[wrong[0]]:.4g}. Divide each by its length, and leave out those that are no numbers"
            )
        found.append(table)
    dims = {name: table.shape[1] for name, table in zip(given, found, strict=True)}
    if len(set(dims.values())) > 1:
        said = " and ".join(f"{name} have {dim}" for name, dim in dims.items())
        raise EvaluationError(f"Embeddings must have as many dimensions, but {said}. Take both from one model")
    return found


def shortened(embeddings: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` numbers of embeddings, scaled to unit length again: float32 (rows, dim); whole ones as they are.

    Args:
        embeddings: unit-length embeddings, (rows, dim or more).
        dim: how many.
    """
    if embeddings.shape[1] == dim:
        return embeddings
    first = np.asarray(embeddings, dtype=np.float32)[:, :dim]
    with np.errstate(invalid="ignore"):  # of zeros alone they are no numbers then
        found: np.ndarray = first / np.linalg.norm(first, axis=1, keepdims=True)
    return found
