"""The labels of pictures as numbers."""

from dataclasses import dataclass

import numpy as np

from attune.data.pairs import Pairs


@dataclass(frozen=True)
class Labels:
    """Classes that pictures are trained on.

    Attributes:
        names: of all classes, sorted.
        numbers: int64 (pictures,), the place of each picture's label among the names.
    """

    names: list[str]
    numbers: np.ndarray

    @classmethod
    def of(cls, pairs: Pairs) -> "Labels":
        """The labels of pairs, each as it is written."""
        names, numbers = np.unique(np.asarray(pairs.labels, dtype=np.str_), return_inverse=True)
        return cls(names.tolist(), numbers.astype(np.int64))
