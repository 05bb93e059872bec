"""From encoded bytes to a picture, the same way everywhere: validation, training, evaluation, search."""

import io

from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
"""Pictures above this many pixels are refused: a small file can unpack into gigabytes."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow knows many more, some of which start other programs to decode a file."""


def decode(data: bytes) -> Image.Image:
    """The picture as RGB, turned as its EXIF orientation says, transparency on white.

    Args:
        data: one of `FORMATS`; of several frames the first.

    Raises:
        ValueError: if it is no picture, is cut short, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            return picture.convert("RGB")
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error ...
        raise ValueError(f"it cannot be decoded ({error})") from error
