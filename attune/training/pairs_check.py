"""Whether captions belong to their pictures: real pairs beside shuffled ones, as the starting model sees them."""

from dataclasses import dataclass, replace

import numpy as np

from attune.errors import DataError
from attune.evaluation.ranking import ranks
from attune.kinds import IMAGE, Kind

ENOUGH_PICTURES = 50
"""On fewer, right pairs of a model that is new to the subject may well look like chance."""

MOST_PICTURES = 1000
"""Pictures that the check looks at: enough to see a difference of a tenth of a standard deviation."""

SHUFFLES = 999
"""Shuffles compared with: p-values down to 0.001."""

SIGNIFICANT = 0.05
"""Real pairs must beat 95 % of the shuffles. A stricter bound would refuse subjects that the model hardly knows."""

ALL_ALIKE = 0.9
"""Mean cosine above which a model hardly tells its inputs apart, so that its similarities say nothing of the pairs: random
weights have 0.9 and more, a healthy CLIP 0.4 to 0.6, and up to 0.85 on one narrow subject."""


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
        kind: what the pictures are.
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
    kind: Kind = IMAGE

    @property
    def figures(self) -> str:
        """One line for the log."""
        return (
            f"mean similarity {self.real_similarity:.3f} of real pairs and {self.shuffled_similarity:.3f} of shuffled ones, "
            f"{self.kind.arrows[0]} recall@{self.k} {self.real_recall:.3f} and {self.shuffled_recall:.3f} (chance "
            f"{self.chance_recall:.3f}), on {self.pictures} {self.kind.items}, p = {self.p_value:.3f}"
        )


def shuffled_pairs_check(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_of_text: np.ndarray,
    rng: np.random.Generator,
    recall: int = 5,
    scratch: bool = False,
    narrow: bool = False,
    kind: Kind = IMAGE,
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
        narrow: whether the model knows one subject only, so that these pairs may mean nothing to it.
        kind: what the pictures are, for messages.

    Raises:
        DataError: if real pairs are no better than shuffled ones. With fewer than `ENOUGH_PICTURES` pictures, with a
            `narrow` model, and with one that finds all pictures or all texts alike, this is a warning in the result.
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
    check = PairsCheck(count, recall, real, float(np.mean(shuffles)), recalls[0], recalls[1], chance, p_value, kind=kind)
    if scratch or p_value <= SIGNIFICANT:
        return check

    problem = f"The starting model finds real pairs no better than shuffled ones: {check.figures}"
    if count < ENOUGH_PICTURES:
        return replace(check, warning=f"{problem}. {count} {kind.items} are too few to be sure: look at some of the pairs")
    captions = "texts" if kind is IMAGE else kind.captions
    alike = [name for name, rows in ((kind.items, images), (captions, texts)) if _mean_cosine(rows) > ALL_ALIKE]
    if alike:
        return replace(
            check, warning=f"{problem}. It finds all {' and all '.join(alike)} alike, so this may be the model's fault"
        )
    if narrow:
        return replace(check, warning=f"{problem}. It may know nothing of this subject: look at some of the pairs")
    paths = "" if kind.of_texts or kind.of_embeddings else "paths point into another folder, "
    codes = f"; or the {kind.captions} are codes or in a language that the model does not know" * kind.has_texts
    raise DataError(
        f"{problem}. Likely {kind.captions} are shifted by a row, {paths}or a table was sorted by one column only{codes}. "
        "Look at some of the pairs and push the data again; or set check_pairs=False if they are right and the model is to "
        "learn all of it from them"
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
