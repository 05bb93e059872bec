"""Each picture is decoded and resized once: a memory-mapped file of uint8 pixels beside the dataset.

Embeddings in the place of pictures have one as well, of float32 rows.

Epochs, validation and both evaluations read the same bytes, so they cannot differ in preprocessing, and memory stays
bounded by the operating system's page cache.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attune.data import store
from attune.data.embeddings import read_embedding
from attune.data.images import decode
from attune.files import locked, whole_file, write_text

Resize = Callable[[Image.Image], Image.Image]


class PixelCache:
    """Pixels of a dataset's pictures at one size, by SHA-256 of the picture.

    Attributes:
        pixels: uint8 memory map, (images, 3, height, width), RGB; of embeddings float32 (images, dim).
    """

    def __init__(self, path: Path) -> None:
        self.pixels = np.load(path, mmap_mode="r")
        self._row = {image: row for row, image in enumerate(json.loads(path.with_suffix(".json").read_text()))}

    def rows(self, images: list[str]) -> np.ndarray:
        """Row numbers in `pixels` of these pictures, int64."""
        return np.asarray([self._row[image] for image in images], dtype=np.int64)


def open_pixels(fingerprint: str, preprocess: dict[str, Any], resize: Resize) -> PixelCache:
    """The dataset's pixels as this preprocessing gives them; made now if they are not there yet.

    Args:
        fingerprint: the dataset.
        preprocess: open_clip preprocess configuration; only what changes the uint8 pixels makes a new file.
        resize: picture in, picture of the final size out.
    """
    geometry = {key: value for key, value in preprocess.items() if key not in ("mean", "std")}
    key = hashlib.sha256(json.dumps(geometry, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return _open(fingerprint, key, lambda data: to_pixels(decode(data), resize))


def open_embeddings(fingerprint: str) -> PixelCache:
    """The embeddings of a dataset that has these in the place of pictures, as rows; made now if they are not there yet."""
    return _open(fingerprint, "embeddings", read_embedding)


def to_pixels(picture: Image.Image, resize: Resize) -> np.ndarray:
    """A picture as the model sees it before normalisation: uint8 (3, height, width)."""
    return np.asarray(resize(picture)).transpose(2, 0, 1)


def _open(fingerprint: str, key: str, convert: Callable[[bytes], np.ndarray]) -> PixelCache:
    """A cache by its key; `convert` makes an array of a picture's bytes."""
    path = store.content_folder(fingerprint) / f"pixels-{key}.npy"
    with locked(path.with_suffix(".lock")):  # two runs on one dataset: the second waits and finds the file
        if path.exists():
            os.utime(path)  # somebody has use for it: `attune.service.retention` removes what nobody had for a while
        else:
            _build(fingerprint, path, convert)
    return PixelCache(path)


def _build(fingerprint: str, path: Path, convert: Callable[[bytes], np.ndarray]) -> None:
    images = sorted(set(store.read_index(fingerprint)["image_sha256"].to_pylist()))
    row_of = {image: row for row, image in enumerate(images)}
    pixels: np.ndarray | None = None
    with whole_file(path) as draft, ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in store.iter_images(fingerprint):
            # Pillow decodes and resizes outside the interpreter lock, so threads are enough.
            decoded = pool.map(lambda item: convert(item[1]), batch)
            for (image, _), array in zip(batch, decoded, strict=True):
                if pixels is None:
                    shape = (len(images), *array.shape)
                    pixels = np.lib.format.open_memmap(draft, mode="w+", dtype=array.dtype, shape=shape)
                    _take_room(draft)
                pixels[row_of[image]] = array
        if isinstance(pixels, np.memmap):
            pixels.flush()
        write_text(path.with_suffix(".json"), json.dumps(images))


def _take_room(path: Path) -> None:
    """Takes the file's room on the disk now: where there is none, writing to its memory map would end the process."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
