"""A linear probe: how well classes can be read off a model's features by a logistic regression.

For figures that can stand beside those of CLIP_benchmark see `attune.evaluation.clip_benchmark_probe`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attune.errors import DataError
from attune.evaluation.classification import check_targets, per_query

STRENGTHS = np.logspace(6, -6, num=97)
"""Eight a factor of ten, the strongest first."""

CONSTANT = 1e-6
"""Features whose standard deviation is at most this share of their greatest value are constant: it is float32's rounding."""

LBFGS: dict[str, Any] = {
    "max_iter": 1000,
    "tolerance_grad": 1e-4,
    "tolerance_change": 1e-9,
    "history_size": 10,
    "line_search_fn": "strong_wolfe",
}
"""Iterations as in Radford et al. 2021; a fit ends when no part of the gradient of the mean loss is above 1e-4, as
scikit-learn's does by default."""


class Features(NamedTuple):
    """Features and their classes.

    Attributes:
        vectors: float32 (pictures, dim).
        targets: int64 (pictures,), from 0.
    """

    vectors: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class LinearProbe:
    """A trained probe.

    Attributes:
        weight: float64 (classes, dim); standardisation is part of it, so it takes features as they are.
        bias: float64 (classes,).
        strength: the L2 strength that was chosen.
        tried: share of the validation part that was recognised, 0 to 1, by the strengths that were tried.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    tried: dict[float, float]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits of each class, float32 (queries, classes), of features (queries, dim)."""
        logits: np.ndarray = (features.astype(np.float64) @ self.weight.T + self.bias).astype(np.float32)
        return logits


def linear_probe(train: Features, validation: Features, classes: int, device: str = "cpu") -> LinearProbe:
    """A multinomial logistic regression whose L2 strength was chosen on the validation part, fitted on both parts.

    It minimises sum of cross-entropies + strength / 2 x sum of squared weights; the bias is free, and strength is 1 / C of
    scikit-learn. As in Radford et al. 2021, appendix A.3, it is sought between 1e-6 and 1e6: at seven points first, then
    around the best in steps of half the width, down to eight steps a factor of ten. Of equally good ones the strongest is
    taken. Each fit (LBFGS, as in `LBFGS`) starts at that of the next stronger one. Unlike there, features are standardised,
    to zero mean and unit variance on the training part; constant ones become 0. Nothing is random.

    Args:
        train: one part.
        validation: another; it may lack classes.
        classes: number of classes.
        device: torch device.

    Raises:
        DataError: if a part is empty, features are not finite, or targets are not a class for each row.
    """
    for part in (train, validation):
        check_targets(part.targets, len(part.vectors), classes)
        if not np.isfinite(part.vectors).all():
            raise DataError(
                "Some features are not finite numbers, so no probe can be fitted. Look at the model's embeddings"
            )
    mean, scale = _standard(train.vectors)
    x, held_out = (_tensor(((part.vectors - mean) / scale).astype(np.float32), device) for part in (train, validation))
    y, held_out_y = (_tensor(part.targets, device) for part in (train, validation))

    fits: dict[int, tuple[Tensor, Tensor]] = {}  # by place in STRENGTHS, as is what they recognise of the validation part
    found: dict[int, float] = {}
    places: Iterable[int] = range(0, len(STRENGTHS), 16)
    for step in (8, 4, 2, 1, 0):
        for place in sorted(set(places) - set(found)):
            stronger = max((other for other in fits if other < place), default=None)
            fits[place] = _fit(x, y, STRENGTHS[place], _zeros(x, classes) if stronger is None else fits[stronger])
            scores = F.linear(held_out, *fits[place]).cpu().numpy()
            found[place] = float(per_query(scores, validation.targets)["acc1"].mean())
        best = min(found, key=lambda place: (-found[place], place))
        places = (max(best - step, 0), min(best + step, len(STRENGTHS) - 1))

    weight, bias = _fit(torch.cat([x, held_out]), torch.cat([y, held_out_y]), STRENGTHS[best], fits[best])
    unscaled = weight.cpu().double().numpy() / scale
    tried = {float(STRENGTHS[place]): found[place] for place in sorted(found)}
    return LinearProbe(unscaled, bias.cpu().double().numpy() - unscaled @ mean, float(STRENGTHS[best]), tried)


def _fit(x: Tensor, y: Tensor, strength: float, start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight (classes, dim) and bias (classes,) that minimise the objective."""
    weight, bias = (part.clone().requires_grad_() for part in start)
    optimizer = torch.optim.LBFGS([weight, bias], **LBFGS)

    def objective() -> Tensor:
        optimizer.zero_grad()
        # Divided by the number of pictures, so that one tolerance suits all.
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + strength / (2 * len(x)) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float64 (dim,); a deviation of 1 where it is constant."""
    exact = features.astype(np.float64)
    deviation = exact.std(axis=0)
    constant = deviation <= CONSTANT * np.abs(exact).max(axis=0)
    return exact.mean(axis=0), np.where(constant, 1.0, deviation)


def _tensor(values: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(values).to(device)


def _zeros(x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
