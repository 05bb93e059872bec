"""False negatives: pairs of a batch that the loss must not push apart, because they say or show the same."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attune.data.captions import Sample
from attune.data.words import plain

HEIGHT, WIDTH = 8, 9  # of a thumbnail: 8 rows of 8 steps to the right are 64 bits
SMALLEST_STEP = 1.0  # grey levels of 255; a plain background changes by less, through noise and compression alone
SAME_COLOUR = 8.0  # levels of 255 by which the mean colours of one picture, stored twice, may differ
_GREY = np.asarray([0.299, 0.587, 0.114], dtype=np.float32)  # luma of RGB, ITU-R BT.601


def caption_keys(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """A number for each caption, equal for captions that say the same but for case, punctuation and spaces.

    Args:
        captions: all captions of each picture.

    Returns:
        int64 (all captions,), picture by picture; see `attune.data.words.plain` for what counts as the same.

    Example:
        `[["A dog.", "one dog"], ["a dog"]]` gives `[0, 1, 0]`.
    """
    known: dict[str, int] = {}
    return np.asarray([known.setdefault(plain(text), len(known)) for texts in captions for text in texts], dtype=np.int64)


def thumbnails(pixels: np.ndarray, chunk: int = 128) -> np.ndarray:
    """Each picture's mean over 8 x 9 fields of equal size: all that is needed to compare pictures.

    Args:
        pixels: uint8 (pictures, 3, height, width) of any size, a memory map too: it is read once, a chunk at a time.
        chunk: pictures held in memory at once.

    Returns:
        float32 (pictures, 3, 8, 9), 0 to 255. A thumbnail's thumbnail is itself.
    """
    rows, columns = _fields(pixels.shape[2], HEIGHT), _fields(pixels.shape[3], WIDTH)
    small = np.empty((len(pixels), 3, HEIGHT, WIDTH), dtype=np.float32)
    for start in range(0, len(pixels), chunk):
        part = np.asarray(pixels[start : start + chunk], dtype=np.float32)
        small[start : start + chunk] = rows @ (part @ columns.T)
    return small


def picture_hashes(pixels: np.ndarray) -> np.ndarray:
    """A 64-bit difference hash of each picture: one bit for each step to the right that is one to a brighter field.

    The method is dHash (N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013), but for one thing: a step of
    less than a grey level counts as none, so the bits of a plain background are zeros and not noise.

    Args:
        pixels: uint8 (pictures, 3, height, width), or their `thumbnails`.

    Returns:
        uint64 (pictures,). A picture of one colour gives 0.
    """
    grey = np.einsum("nchw,c->nhw", thumbnails(pixels), _GREY)  # n pictures, c channels, h rows, w columns
    brighter = (grey[:, :, 1:] - grey[:, :, :-1] >= SMALLEST_STEP).reshape(-1, 64)
    return np.packbits(brighter, axis=1).view(np.uint64).ravel()


def mean_colours(pixels: np.ndarray) -> np.ndarray:
    """Each picture's mean red, green and blue: float32 (pictures, 3), 0 to 255, of pixels or their `thumbnails`."""
    means: np.ndarray = thumbnails(pixels).mean((2, 3))
    return means


def near(hashes_a: np.ndarray, hashes_b: np.ndarray, bits: int = 2) -> np.ndarray:
    """Which hashes differ by at most `bits` bits: bool (a, b).

    A hash that is that near to 0, the hash of a blank picture, says nothing about what there is to see, and is near to
    none: else all blank pictures, and all with one small spot, would count as one.
    """
    says_something = (np.bitwise_count(hashes_a) > bits)[:, None] & (np.bitwise_count(hashes_b) > bits)
    alike: np.ndarray = says_something & (np.bitwise_count(hashes_a[:, None] ^ hashes_b) <= bits)
    return alike


class Duplicates:
    """Knows which captions would fit which pictures besides their own.

    Args:
        captions: all captions of each picture.
        hashes: uint64 (pictures,) from `picture_hashes`.
        groups: one name per picture.
        colours: float32 (pictures, 3) from `mean_colours`. The hashes see no colour; with this, pictures that differ
            in it, such as one shirt in red and in green, are no duplicates.
        queries: of pairs of texts, the texts that stand in the pictures' place; they need no hashes. Equal ones are
            duplicates, and a caption that says the same as another's text is no fair negative of it. Of pairs of pictures,
            the pictures' keys, and captions are the keys of their matches.
        caption_looks: of pairs of pictures, hashes and mean colours of all matches, picture by picture: a match that looks
            like another picture, or like its match, is no fair negative of it.
        negatives: of each picture, if the data has any. One that belongs to another picture is none of that one.

    Example:
        Picture 0 has the captions "a dog" and "my dog", picture 1 has "A dog!", picture 2 looks like picture 1 and has
        "Rex". With all four captions in a batch, `ignored` is::

                       a dog  my dog  A dog!  Rex
            picture 0    -      -       X      .      "a dog" is a caption of its own too
            picture 1    X      .       -      X      the same, and the look-alike's caption
            picture 2    .      .       X      -      the look-alike's caption
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        hashes: np.ndarray | None,
        groups: Sequence[str],
        colours: np.ndarray | None = None,
        queries: Sequence[str] = (),
        caption_looks: tuple[np.ndarray, np.ndarray] | None = None,
        negatives: Sequence[Sequence[str]] = (),
    ) -> None:
        self._hashes = hashes
        self._caption_looks = caption_looks
        self._colours = colours
        self._groups = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
        # What belongs to a picture: its captions, and before them the text that stands in its place, if there is one.
        belonging = [[query, *texts] for query, texts in zip(queries, captions, strict=True)] if queries else captions
        counts = np.asarray([len(texts) for texts in belonging], dtype=np.int64)
        keys = caption_keys([*belonging, *negatives])
        self._belonging, wrong = keys[: counts.sum()], keys[counts.sum() :]
        self._first = np.concatenate([[0], np.cumsum(counts)])
        of_captions = np.ones(len(self._belonging), dtype=np.bool_)
        if queries:
            of_captions[self._first[:-1]] = False
        self._queries = self._belonging[~of_captions] if queries else None
        self._keys = np.concatenate([self._belonging[of_captions], wrong])
        shared = self._keys_of_several(np.repeat(np.arange(len(counts)), counts))[of_captions]
        self._shared = np.concatenate([shared, np.isin(wrong, self._belonging)])

    def ignored(self, rows: np.ndarray, sample: Sample) -> Tensor:
        """Which pairs of a batch are neither right nor fair negatives; never a picture with its own caption.

        A caption is no fair negative of a picture that has a caption with the same key, in the batch or not, that is
        nearly equal to the caption's own picture, or that shares a group with it.

        Args:
            rows: int64 (batch,); the pictures.
            sample: the captions drawn for them.

        Returns:
            bool (pictures, captions); what the losses take as `ignored`.
        """
        # Filled the other way round, (captions, pictures): whole rows of memory are copied faster than columns.
        found = self._alike(rows)[sample.owners]
        places = np.arange(len(sample.owners))
        found[places, sample.owners] = False
        shared = np.flatnonzero(self._shared[sample.numbers])
        if len(shared):
            keys, key_of = np.unique(self._keys[sample.numbers[shared]], return_inverse=True)
            found[shared] |= self._in_pictures(keys, rows)[key_of]
        if self._caption_looks is not None:
            found |= self._looks_like(rows, sample)
        own = places if sample.wrong is None else places[~sample.wrong]  # a negative may say the same as a caption
        found[own, sample.owners[own]] = False
        return torch.from_numpy(found.T)

    def _alike(self, rows: np.ndarray) -> np.ndarray:
        """Which pictures of a batch are nearly equal or of one group: bool (batch, batch), symmetric."""
        groups = self._groups[rows]
        alike = np.zeros((len(rows), len(rows)), dtype=np.bool_)
        if self._queries is not None:
            alike |= self._queries[rows][:, None] == self._queries[rows]
        if self._hashes is not None:
            looks = self._hashes[rows], None if self._colours is None else self._colours[rows]
            alike |= _look_alike(looks, looks)
        alike |= groups[:, None] == groups
        return alike

    def _looks_like(self, rows: np.ndarray, sample: Sample) -> np.ndarray:
        """Which matches of a batch look like which of its pictures, or like a match of it: bool (captions, batch)."""
        assert self._caption_looks is not None
        assert self._hashes is not None
        hashes, colours = self._caption_looks
        matches = hashes[sample.numbers], colours[sample.numbers]
        found = _look_alike(matches, (self._hashes[rows], None if self._colours is None else self._colours[rows]))
        first = np.searchsorted(sample.owners, np.arange(len(rows)))  # matches are in the order of their pictures
        found |= np.logical_or.reduceat(_look_alike(matches, matches), first, axis=1)
        return found

    def _in_pictures(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which of these keys (sorted) belong to which pictures of a batch: bool (keys, batch)."""
        counts = self._first[rows + 1] - self._first[rows]
        pictures = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(pictures)) - np.repeat(np.cumsum(counts) - counts, counts)
        own = self._belonging[self._first[rows][pictures] + place]  # the keys of all that belongs to the batch's pictures
        index = np.searchsorted(keys, own).clip(max=len(keys) - 1)
        asked = keys[index] == own
        found = np.zeros((len(keys), len(rows)), dtype=np.bool_)
        found[index[asked], pictures[asked]] = True
        return found

    def _keys_of_several(self, pictures: np.ndarray) -> np.ndarray:
        """Which of all that belongs to pictures has a key that belongs to several: bool (all of it,)."""
        each = np.unique(np.stack([self._belonging, pictures], axis=1), axis=0)
        shared: np.ndarray = (np.bincount(each[:, 0]) > 1)[self._belonging]
        return shared


def _look_alike(a: tuple[np.ndarray, np.ndarray | None], b: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
    """Which pictures are nearly equal, of their hashes and, if these are known, mean colours: bool (a, b)."""
    (hashes_a, colours_a), (hashes_b, colours_b) = a, b
    alike = near(hashes_a, hashes_b)
    if colours_a is not None and colours_b is not None:
        row, column = np.divmod(np.flatnonzero(alike), len(hashes_b))  # in two dimensions, nonzero is several times slower
        alike[row, column] = np.abs(colours_a[row] - colours_b[column]).max(1, initial=0) <= SAME_COLOUR
    return alike


def _fields(length: int, count: int) -> np.ndarray:
    """Weights that average `length` pixels into `count` fields of equal size: float32 (count, length), rows sum to 1."""
    edges = np.arange(count + 1) * (length / count)
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: np.ndarray = (overlap.clip(min=0) * (count / length)).astype(np.float32)
    return weights
