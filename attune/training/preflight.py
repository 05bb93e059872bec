"""What can be known before the first step: what a run takes, and whether its data can teach anything."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attune.errors import DataError
from attune.metrics import ranks

FLOAT_BYTES = 4
ADAM_MOMENTS = 2

FEW_STEPS = 50
"""Below this, fine-tuning rates move a model little: with a tenth of warm-up hardly 40 steps are at the full rate."""

ENOUGH_PICTURES = 50
"""On fewer, right pairs of a model that is new to the subject may well look like chance."""

MOST_PICTURES = 1000
"""Pictures that the shuffled-pairs check looks at: enough to see a difference of a tenth of a standard deviation."""

SHUFFLES = 999
"""Shuffles compared with: p-values down to 0.001."""

SIGNIFICANT = 0.05
"""Real pairs must beat 95 % of the shuffles. A stricter bound would refuse subjects that the model hardly knows."""

ALL_ALIKE = 0.9
"""Mean cosine above which a model hardly tells its inputs apart, so that its similarities say nothing of the pairs: random
weights have 0.9 and more, a healthy CLIP 0.4 to 0.6, and up to 0.85 on one narrow subject."""


class Estimate(NamedTuple):
    """What a run takes, roughly.

    Attributes:
        steps: optimizer steps.
        seconds: of stepping; validation and checkpoints come on top.
        memory_bytes: at the peak of a step.
        advice: what to change; empty if nothing.
    """

    steps: int
    seconds: float
    memory_bytes: int
    advice: str

    def describe(self) -> str:
        """One line for the log, such as ``about 96 steps, 3 min, 1.9 GB``."""
        line = f"about {self.steps} steps, {_duration(self.seconds)}, {_size(self.memory_bytes)}"
        return f"{line}. {self.advice}" if self.advice else line


def estimate(
    steps: int,
    seconds_per_step: float,
    parameters: int,
    trainable: int,
    activation_bytes: int = 0,
    average: bool = False,
    available_bytes: int | None = None,
) -> Estimate:
    """What a run takes: time as measured on one step, memory as the sum of its large parts, all in float32.

    Args:
        steps: optimizer steps of the run.
        seconds_per_step: of one real step.
        parameters: numbers in the model.
        trainable: those among them that training changes: each has a gradient and two moments of Adam.
        activation_bytes: kept for the backward pass of one micro batch; see `activation_bytes`.
        average: whether a running average of the trained weights is kept.
        available_bytes: memory there is, if known.
    """
    numbers = parameters + trainable * (1 + ADAM_MOMENTS + average)
    memory = numbers * FLOAT_BYTES + activation_bytes
    advice = []
    if available_bytes is not None and memory > available_bytes:
        advice.append(
            f"That is more memory than the {_size(available_bytes)} there are: set a smaller micro_batch_size, or choose a "
            "smaller model"
        )
    if steps < FEW_STEPS:
        advice.append(f"Fewer than {FEW_STEPS} steps change little: raise epochs, or lower batch_size")
    return Estimate(steps, steps * seconds_per_step, memory, ". ".join(advice))


def activation_bytes(forward: Callable[[], Tensor], parameters: Sequence[Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, on any device.

    Args:
        forward: computes the loss of one micro batch.
        parameters: of the model; what is kept of these is not counted, they are there anyway.

    Returns:
        The sum over all tensors that autograd saved, each stretch of memory once.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()  # held on to: addresses are unique only while all saved tensors live
    total = sum(kept.values())
    del loss
    return total


@dataclass(frozen=True)
class PairsCheck:
    """How the starting model sees the pairs as they are, and shuffled.

    Attributes:
        pictures: looked at.
        k: of the recalls.
        real_similarity: mean cosine of pictures with the mean of their own texts.
        shuffled_similarity: mean over shuffles of the same, with texts of other pictures.
        real_recall: text to image recall@k, 0 to 1; lower bound k / pictures in the mean if nothing is known.
        shuffled_recall: the same for one shuffle.
        chance_recall: k / pictures.
        p_value: share of shuffles at least as similar as the real pairs, 0 to 1.
        warning: what is wrong, if it is not enough for an error; else empty.
    """

    pictures: int
    k: int
    real_similarity: float
    shuffled_similarity: float
    real_recall: float
    shuffled_recall: float
    chance_recall: float
    p_value: float
    warning: str = ""

    @property
    def figures(self) -> str:
        """One line for the log."""
        return (
            f"mean similarity {self.real_similarity:.3f} of real pairs and {self.shuffled_similarity:.3f} of shuffled ones, "
            f"text->image recall@{self.k} {self.real_recall:.3f} and {self.shuffled_recall:.3f} (chance "
            f"{self.chance_recall:.3f}), on {self.pictures} pictures, p = {self.p_value:.3f}"
        )


def shuffled_pairs_check(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_of_text: np.ndarray,
    rng: np.random.Generator,
    recall: int = 5,
    scratch: bool = False,
) -> PairsCheck:
    """Compares real pairs with shuffled ones under the starting model.

    A permutation test (Good 2005, chapter 3) of the mean similarity of pictures with the mean of their own texts. It notices
    far weaker signs than recall does, so it fails only where there is none. The shuffles are derangements: no picture
    keeps its texts.

    Args:
        image_embeddings: unit length, float32 (images, dim).
        text_embeddings: unit length, float32 (texts, dim).
        image_of_text: for each text the row of its picture, int64 (texts,). Each picture has at least one.
        rng: source of the shuffles, and of the choice if there are more than `MOST_PICTURES` pictures.
        recall: the k of recall@k.
        scratch: whether the weights are random; then nothing is asked of the pairs.

    Raises:
        DataError: if real pairs are no better than shuffled ones. With fewer than `ENOUGH_PICTURES` pictures, and with a
            model that finds all pictures or all texts alike, this is a warning in the result.
    """
    images, texts, own = _choose(image_embeddings, text_embeddings, image_of_text, rng)
    count = len(images)
    means = np.zeros((count, texts.shape[1]), dtype=np.float64)
    np.add.at(means, own, texts)
    means /= np.bincount(own, minlength=count)[:, None]
    similarity = images @ means.T  # (images, images): picture i with the texts of picture j

    row = np.arange(count)
    real = float(similarity[row, row].mean())
    shuffles = [similarity[row, _derangement(count, rng)].mean() for _ in range(SHUFFLES)] if count > 1 else [real]
    # The tolerance is that of sums in a different order: equal pairs must not win by a rounding error.
    p_value = (1 + sum(shuffled >= real - 1e-9 for shuffled in shuffles)) / (1 + len(shuffles))

    shuffled_own = _derangement(count, rng)[own] if count > 1 else own
    found = [ranks(images, texts, owner)["text_to_image"] for owner in (own, shuffled_own)]
    recalls = [float(np.mean(rank <= recall)) for rank in found]
    chance = min(1.0, recall / count)
    check = PairsCheck(count, recall, real, float(np.mean(shuffles)), recalls[0], recalls[1], chance, p_value)
    if scratch or p_value <= SIGNIFICANT:
        return check

    problem = f"The starting model finds real pairs no better than shuffled ones: {check.figures}"
    if count < ENOUGH_PICTURES:
        return _with_warning(check, f"{problem}. {count} pictures are too few to be sure: look at some of the pairs")
    alike = [name for name, rows in (("pictures", images), ("texts", texts)) if _mean_cosine(rows) > ALL_ALIKE]
    if alike:
        return _with_warning(
            check, f"{problem}. It finds all {' and all '.join(alike)} alike, so this may be the model's fault"
        )
    raise DataError(
        f"{problem}. Likely captions are shifted by a row, paths point into another folder, or a table was sorted by one "
        "column only; or the captions are codes or in a language that the model does not know. Look at some of the pairs "
        "and push the data again"
    )


class Suspect(NamedTuple):
    """A pair that may not belong together.

    Attributes:
        text: row of the text.
        image: row of its picture.
        margin: similarity of the pair beyond what both have with others; about 0 or below for a wrong pair.
    """

    text: int
    image: int
    margin: float


def suspects(
    image_embeddings: np.ndarray, text_embeddings: np.ndarray, image_of_text: np.ndarray, count: int
) -> list[Suspect]:
    """The pairs least alike for what their picture and their text are like, for a person to look at.

    From each pair's similarity, the mean similarity of its text with all pictures and that of its picture with all texts
    are taken off, half each: some are close to everything (as in CSLS, Conneau et al. 2018, arXiv:1710.04087).

    Args:
        image_embeddings: unit length, float32 (images, dim).
        text_embeddings: unit length, float32 (texts, dim).
        image_of_text: for each text the row of its picture, int64 (texts,).
        count: how many at most.

    Returns:
        The most suspicious first.
    """
    own = image_embeddings[image_of_text]  # (texts, dim)
    usual = (text_embeddings @ image_embeddings.mean(axis=0) + own @ text_embeddings.mean(axis=0)) / 2
    margins = (text_embeddings * own).sum(axis=1) - usual
    order = np.argsort(margins, kind="stable")[:count]
    return [Suspect(int(text), int(image_of_text[text]), float(margins[text])) for text in order]


def check_feasible(groups: Sequence[str], captions: Sequence[Sequence[str]], batch_sizes: Sequence[int]) -> None:
    """Refuses data that no contrastive loss can learn from, whatever the model.

    Args:
        groups: of each training picture.
        captions: of each training picture.
        batch_sizes: pairs in each batch of one epoch.

    Raises:
        DataError: if there is one group only, if all captions are equal, or if a batch has fewer than two pairs.
    """
    if len(set(groups)) < 2:
        raise DataError(
            f"The {len(groups)} training pictures are of {len(set(groups))} group: pictures of one group are never told "
            "apart, so there is nothing to learn. Give different groups, or none, to pictures that show different things"
        )
    distinct = {text for texts in captions for text in texts}
    if len(distinct) < 2:
        raise DataError(
            f"All {len(groups)} training pictures have the same caption, {min(distinct, default='')!r}: there is nothing to "
            "learn. Check the column that the captions come from"
        )
    if min(batch_sizes, default=0) < 2:
        raise DataError(
            f"{len(groups)} training pictures of {len(set(groups))} groups make {len(batch_sizes)} batches, of which the "
            f"smallest has {min(batch_sizes, default=0)} pair; a pair is learnt by telling it from others. Raise batch_size "
            "(its batches are of nearly equal size), push more pictures, or more groups"
        )


def _choose(
    images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `MOST_PICTURES` pictures with all their texts, and whose each text is."""
    if len(images) <= MOST_PICTURES:
        return images, texts, image_of_text
    chosen = np.sort(rng.choice(len(images), MOST_PICTURES, replace=False))
    kept = np.isin(image_of_text, chosen)
    return images[chosen], texts[kept], np.searchsorted(chosen, image_of_text[kept])


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of `count` rows, at least 2, none in its place: each goes to its neighbour in a random ring."""
    ring = rng.permutation(count)
    places = np.empty(count, dtype=np.int64)
    places[ring] = np.roll(ring, 1)
    return places


def _mean_cosine(rows: np.ndarray) -> float:
    """Mean cosine over pairs of two different rows, unit length (rows, dim)."""
    total = rows.sum(axis=0, dtype=np.float64)
    return float((total @ total - len(rows)) / (len(rows) * (len(rows) - 1)))


def _with_warning(check: PairsCheck, warning: str) -> PairsCheck:
    return PairsCheck(**{**vars(check), "warning": warning})


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
