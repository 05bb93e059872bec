"""From encoded bytes to a picture, the same way everywhere: validation, training, evaluation, search."""

import io
import threading
from contextlib import nullcontext

from PIL import Image, ImageOps, UnidentifiedImageError

from attune.schemas import MAX_IMAGE_BYTES

MAX_PIXELS = 100_000_000
"""Pictures above this many pixels are refused: a small file can unpack into gigabytes."""

MAX_SCANS = 200
"""A progressive JPEG says in about ten scans what it has to say; each costs the time of a whole picture."""

LARGE = 10_000_000
"""Pictures of more pixels than this are decoded one at a time, so that threads do not add up their memory."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow knows many more, some of which start other programs to decode a file."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit, for what it unpacks before it says how large a picture is
_alone = threading.Lock()


class _Refused(ValueError):
    """A picture that is not even tried."""


def decode(data: bytes) -> Image.Image:
    """The picture as RGB, turned as its EXIF orientation says, transparency on white.

    Args:
        data: one of `FORMATS`; of several frames the first.

    Raises:
        ValueError: if it is no picture, is cut short, or has more than `MAX_PIXELS` pixels or `MAX_IMAGE_BYTES` bytes.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise _Refused(f"it has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are accepted")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _Refused(f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
            if opened.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
                raise _Refused(f"it has more than {MAX_SCANS} scans")
            with _alone if width * height > LARGE else nullcontext():
                return _to_rgb(opened)
    except _Refused:
        raise
    except UnidentifiedImageError:  # its message names an object of Python's
        raise ValueError(f"it cannot be decoded (it is none of {', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error ...
        raise ValueError(f"it cannot be decoded ({error})") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
