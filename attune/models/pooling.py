"""One embedding of a text from those of its tokens; what fills up shorter texts has no part in it."""

from collections.abc import Callable

import torch
from torch import Tensor

GEM_POWER = 3.0
GEM_LEAST = 1e-6

Pooler = Callable[[Tensor, Tensor], Tensor]


def mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Their mean."""
    return _sum(tokens, mask) / mask.sum(dim=1, keepdim=True)


def largest(tokens: Tensor, mask: Tensor) -> Tensor:
    """The largest value in each dimension."""
    return tokens.masked_fill(~mask[..., None], -torch.inf).max(dim=1).values


def first(tokens: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG001  # a text begins with its first token
    """That of the first token, which BERT calls `[CLS]`."""
    return tokens[:, 0]


def last(tokens: Tensor, mask: Tensor) -> Tensor:
    """That of each text's last token."""
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1]


def generalised_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Between their mean and the largest: GeM (Radenović et al. 2018, arXiv:1711.02512). Negative values are zero to it."""
    # What fills up is put to the least before the power: the gradient of its power could be no number.
    tokens = tokens.masked_fill(~mask[..., None], GEM_LEAST).clamp(min=GEM_LEAST)
    return mean(tokens**GEM_POWER, mask) ** (1 / GEM_POWER)


POOLERS: dict[str, Pooler] = {"mean": mean, "max": largest, "cls": first, "last": last, "gem": generalised_mean}
"""By the names that `model_options.pooler` takes.

Each takes embeddings of tokens (texts, length, dim) and which of them are the text's, bool (texts, length): the first ones,
one at least. It gives (texts, dim).
"""


def _sum(tokens: Tensor, mask: Tensor) -> Tensor:
    # Put to zero rather than multiplied by it: what stands there may be no number.
    return tokens.masked_fill(~mask[..., None], 0).sum(dim=1)
