"""Pictures and captions that cost what real ones cost: JPEGs with natural spectra, captions as long as Flickr8k's."""

import io

import numpy as np
from PIL import Image

from attune.schemas import TrainingExample

WIDTH, HEIGHT = 500, 375
QUALITY = 90
CAPTIONS = 5
_FIELD = 1024
_DETAIL = 1.2
"""Exponent of the amplitude spectrum 1/f^x. Photographs are near 1 (Field 1987); this one gives files of 50 to 100 KiB."""

# Words a caption (the full stop is one) by quantile, as in the 30,000 training captions of Flickr8k.
_LENGTHS = ([0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1], [3, 5, 6, 9, 11, 14, 19, 23, 38])
_WORDS = (
    "a the in on of with is and his her man woman boy girl dog child people two three young little black white brown red "
    "blue green yellow water grass snow street beach ball park field mountain rock tree bike car house wall road sand pool "
    "running jumping playing sitting standing walking riding holding wearing looking smiling climbing swimming throwing "
    "shirt jacket hat dress front while near through over by at to from against under behind large small"
).split()


def make_examples(count: int, seed: int = 0) -> list[TrainingExample]:
    """Different pictures with `CAPTIONS` different captions each; the same ones for the same seed.

    The pictures are crops of one field of 1/f noise, each with a brightness, contrast and tint of its own.
    """
    rng = np.random.default_rng(seed)
    field = _noise(rng)
    return [
        TrainingExample(image=_jpeg(field, rng), captions=_captions(rng), source=f"synthetic {number}")
        for number in range(count)
    ]


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Four channels of noise with unit deviation, float32 (field, field, 4): one of light, three of colour."""
    frequency = np.hypot(np.fft.fftfreq(_FIELD)[:, None], np.fft.rfftfreq(_FIELD)[None])
    frequency[0, 0] = 1
    white = [np.fft.rfft2(rng.standard_normal((_FIELD, _FIELD))) for _ in range(4)]
    channels = np.stack([np.fft.irfft2(one / frequency**_DETAIL, s=(_FIELD, _FIELD)) for one in white], axis=-1)
    noise: np.ndarray = channels / channels.std((0, 1))
    return noise.astype(np.float32)


def _jpeg(field: np.ndarray, rng: np.random.Generator) -> bytes:
    top, left = rng.integers(_FIELD - HEIGHT), rng.integers(_FIELD - WIDTH)
    crop = field[top : top + HEIGHT, left : left + WIDTH]
    light, tint = rng.uniform(100, 150), rng.normal(0, 12, 3)
    pixels = light + tint + rng.uniform(40, 60) * crop[..., :1] + 14 * crop[..., 1:]
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _captions(rng: np.random.Generator) -> list[str]:
    found: list[str] = []
    while len(found) < CAPTIONS:
        length = round(np.interp(rng.random(), *_LENGTHS))
        text = " ".join([*rng.choice(_WORDS, length - 1), "."])
        if text not in found:
            found.append(text)
    return found
