"""Held-out pictures, or texts, that were also trained on, as they are or nearly: their figures tell of memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from attune.data.duplicates import SAME_COLOUR, mean_colours, near, picture_hashes, thumbnails
from attune.data.pairs import Pairs
from attune.data.words import plain
from attune.kinds import IMAGE, Kind

TILE = 1_000_000
"""Pairs of pictures that are compared at a time: 8 MB. Larger tiles leave the processor's cache, and take twice as long."""

SAME_DIRECTION = 0.9999
"""Cosine from which two embeddings are taken for one: half precision changes it by less than a tenth of what is missing."""


@dataclass(frozen=True)
class Leaks:
    """What a held-out part and the training data have in common.

    Attributes:
        exact: rows of held-out pictures that are training pictures, byte for byte.
        near: other held-out pictures that look like one, as (held-out row, training row); of several the nearest. Of texts
            those that say the same as one, or that make the same pair with a caption, whichever of the two is the query.
        captions: held-out captions that a training picture has too, but for case, punctuation and spaces; of pairs of
            pictures, held-out matches that are training pictures or matches, or look like one.
        negatives: held-out texts, captions or queries, that were trained on as negatives, see `count_negatives`.
        earlier: the runs that the model comes from, whose training pictures are among those that were looked at.
        kind: what is held out.
    """

    exact: list[int]
    near: list[tuple[int, int]]
    captions: int
    negatives: int = 0
    earlier: tuple[str, ...] = ()
    kind: Kind = IMAGE

    @property
    def rows(self) -> list[int]:
        """Held-out pictures that leak, exactly or nearly, in order."""
        return sorted([*self.exact, *(row for row, _ in self.near)])

    def describe(self) -> str:
        """What to know of it, for a report; empty if nothing leaks."""
        found = []
        kind = self.kind
        alike, same = "look nearly like one", "file"
        if kind.of_texts:
            alike, same = "say the same as one", "text"
        elif kind.of_embeddings:
            alike, same = "are nearly one", "numbers"
        if self.rows:
            found.append(
                f"Held-out {kind.items} that are training {kind.items}, or {alike}: {len(self.rows)} "
                f"({len(self.exact)} the same {same}, {len(self.near)} nearly alike). On these a model "
                "may be measured on what it learnt"
            )
        if self.captions:
            usual = ", as is usual of short ones" if kind is IMAGE else ""
            have = f"look like training {kind.items}, or are" if kind.has_matches else f"training {kind.items} have too"
            found.append(f"Held-out {kind.captions} that {have}: {self.captions}{usual}")
        if self.negatives:
            texts = " or ".join(([kind.items] if kind.of_texts else []) + ([kind.captions] if kind.has_texts else []))
            found.append(
                f"Held-out {texts} that were trained on as negatives: {self.negatives}. Training moved them away from other "
                f"{kind.items}, so their figures may be lower or higher than those of new texts"
            )
        if found and self.earlier:
            found.append(f"Those of the runs that the model comes from count as well: {', '.join(self.earlier)}")
        return "".join(f"{sentence}. " for sentence in found).rstrip()


def find_leaks(train: Pairs, train_pixels: np.ndarray, test: Pairs, test_pixels: np.ndarray) -> Leaks:
    """What of a held-out part is in the training data.

    Pictures are nearly the same if their hashes are `near` and their mean colours alike, as in `attune.data.duplicates`:
    so is a picture that was scaled, compressed or brightened a little, and not one that was cut or turned over. All are
    compared with all, a tile at a time: 10,000 with 100,000 in 2 s on one core, besides the time to read their pixels.

    Args:
        train: what was trained on.
        train_pixels: its pictures, row by row: uint8 (pictures, 3, height, width), or their `looks`; or embeddings.
        test: what is held out.
        test_pixels: the same of it.

    Raises:
        ValueError: if there are not as many pixels as pictures.
    """
    for pairs, pixels in ((train, train_pixels), (test, test_pixels)):
        if len(pairs) != len(pixels):
            raise ValueError(f"There are pixels of {len(pixels)} pictures for {len(pairs)} pairs. Give them row by row")
    known, said = set(train.images), set(map(plain, train.texts))
    exact = [row for row, image in enumerate(test.images) if image in known]
    alike = _nearest(looks(test_pixels), looks(train_pixels))
    return Leaks(
        exact=exact,
        near=[(row, other) for row, other in alike.items() if test.images[row] not in known],
        captions=sum(plain(text) in said for text in test.texts),
        kind=test.kind,
    )


def find_match_leaks(train: Pairs, train_pixels: np.ndarray, test: Pairs, test_pixels: np.ndarray) -> Leaks:
    """What of a held-out part is in the training data, of pairs of pictures: as an item there or as a match.

    Args:
        train: what was trained on.
        train_pixels: as for `find_leaks`: of its pictures row by row, and after them of all their matches. Or embeddings,
            see `looks`.
        test: what is held out.
        test_pixels: the same of it.
    """
    known = {*train.images, *train.texts}
    row_of = [*range(len(train)), *(row for row, keys in enumerate(train.captions) for _ in keys)]
    alike = _nearest(looks(test_pixels), looks(train_pixels))
    return Leaks(
        exact=[row for row, image in enumerate(test.images) if image in known],
        near=[(row, row_of[alike[row]]) for row, image in enumerate(test.images) if row in alike and image not in known],
        captions=sum(key in known or number in alike for number, key in enumerate(test.texts, start=len(test))),
        kind=test.kind,
    )


def find_text_leaks(train: Pairs, test: Pairs) -> Leaks:
    """What of a held-out part is in the training data, of pairs of texts: by `attune.data.words.plain`.

    Args:
        train: what was trained on.
        test: what is held out.
    """
    known, said = set(train.images), set(map(plain, train.texts))
    row_of: dict[str | frozenset[str], int] = {}
    for row, (query, captions) in enumerate(zip(train.queries, train.captions, strict=True)):
        for found in _texts_and_pairs(query, captions):
            row_of.setdefault(found, row)
    near = []
    for row, (key, query, captions) in enumerate(zip(test.images, test.queries, test.captions, strict=True)):
        others = [row_of[found] for found in _texts_and_pairs(query, captions) if found in row_of]
        if others and key not in known:
            near.append((row, others[0]))
    return Leaks(
        exact=[row for row, key in enumerate(test.images) if key in known],
        near=near,
        captions=sum(plain(text) in said for text in test.texts),
        kind=test.kind,
    )


def count_negatives(wrong: Iterable[str], test: Pairs) -> int:
    """How many held-out texts were trained on as negatives, but for case, punctuation and spaces.

    They are no leak as training items and captions are, and no reason for a warning by themselves: what belongs to them was
    not learnt, and negatives are usually drawn from the very texts that are searched later. But they were moved away from
    the items whose negatives they were, and not from others, so that figures may be lower or higher than of texts that are
    new. So they are counted and said.

    Args:
        wrong: the negatives of all that was trained on.
        test: what is held out; its texts are its captions, and its items if these are texts.
    """
    known = set(map(plain, wrong))
    texts = [*test.queries, *(test.texts if test.kind.has_texts else [])]
    return sum(plain(text) in known for text in texts) if known else 0


def _texts_and_pairs(query: str, captions: list[str]) -> list[str | frozenset[str]]:
    """A query, and it with each of its captions in no order: paraphrases may stand the other way round elsewhere."""
    return [plain(query), *(frozenset((plain(query), plain(text))) for text in captions)]


def looks(pixels: np.ndarray) -> np.ndarray:
    """What pictures are compared by: their thumbnails; of embeddings, (items, dim), their direction, float32."""
    if pixels.ndim == 4:
        return thumbnails(pixels)
    vectors = np.asarray(pixels, dtype=np.float32)
    directions: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return directions


def _nearest(test: np.ndarray, train: np.ndarray) -> dict[int, int]:
    """By held-out row the training row that looks most like it, where one does, of thumbnails or directions."""
    if test.ndim == 2:
        return _nearest_directions(test, train)
    hashes, train_hashes = picture_hashes(test), picture_hashes(train)
    colours, train_colours = mean_colours(test), mean_colours(train)
    found: dict[int, int] = {}
    height = max(1, TILE // max(1, len(train)))
    for start in range(0, len(test), height):
        alike = near(hashes[start : start + height], train_hashes)
        row, other = np.divmod(np.flatnonzero(alike), len(train))
        row += start
        same = np.abs(colours[row] - train_colours[other]).max(1, initial=0) <= SAME_COLOUR
        row, other = row[same], other[same]
        nearest_first = np.argsort(np.bitwise_count(hashes[row] ^ train_hashes[other]), kind="stable")
        rows, first = np.unique(row[nearest_first], return_index=True)
        found.update(zip(rows.tolist(), other[nearest_first][first].tolist(), strict=True))
    return found


def _nearest_directions(test: np.ndarray, train: np.ndarray) -> dict[int, int]:
    """The same of embeddings: one that was made twice, in other arithmetic, differs by a rounding."""
    found: dict[int, int] = {}
    height = max(1, TILE // max(1, len(train)))
    for start in range(0, len(test), height):
        cosines = test[start : start + height] @ train.T
        nearest = cosines.argmax(1)
        near = np.flatnonzero(cosines[np.arange(len(cosines)), nearest] >= SAME_DIRECTION)
        found.update(zip((near + start).tolist(), nearest[near].tolist(), strict=True))
    return found
