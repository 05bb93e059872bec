"""Pictures made to harm whoever opens them, each a few kilobytes, or as large as it must be."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from attune.data.images import MAX_PIXELS


def small(kind: str) -> bytes:
    """A harmless picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *before: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it has this size, with these rows (of filter type and values) and other chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND", b"")])


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF of these tags (type, count, value or offset), the pixels' data first, from byte 8 on."""
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def tiff_of_tiles(side: int, tile: int) -> bytes:
    """A TIFF of one small picture in one huge tile, deflated zeros."""
    data = zlib.compress(bytes(min(tile * tile, 200_000_000)), 9)
    numbers = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(data)}
    return tiff({tag: (4, 1, value) for tag, value in numbers.items()}, data)


def tiff_of_pages(pages: int) -> bytes:
    """A TIFF of many one-pixel pages; the last points to the first again."""
    page = 2 + 8 * 12 + 4
    start, found = 9, [b"\x80"]
    for number in range(pages):
        numbers = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 278: 1, 279: 1}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
        following = start + page * ((number + 1) % pages)
        found.append(struct.pack("<H", len(numbers)) + entries + struct.pack("<I", following))
    return struct.pack("<2sHI", b"II", 42, start) + b"".join(found)


def gif(canvas: tuple[int, int], frame: tuple[int, int, int, int]) -> bytes:
    """A GIF with a canvas and one frame (left, top, width, height) of few pixels."""
    data = small("GIF")
    at = data.index(b"\x2c")
    return data[:6] + struct.pack("<HH", *canvas) + data[10 : at + 1] + struct.pack("<HHHH", *frame) + data[at + 9 :]


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that goes over the same coefficients again and again."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def apng(frames: int) -> bytes:
    """An animated PNG that says it has this many frames, and has one."""
    return png(8, 8, bytes(8 * 25), chunk(b"acTL", struct.pack(">II", frames, 0)))


def with_text(kind: bytes, size: int) -> bytes:
    """A PNG with a compressed text of this many bytes."""
    if kind == b"zTXt":
        data = b"Comment\x00\x00" + zlib.compress(bytes(size), 9)
    elif kind == b"iTXt":
        data = b"Comment\x00\x01\x00\x00\x00" + zlib.compress(bytes(size), 9)
    else:
        data = b"profile\x00\x00" + zlib.compress(bytes(size), 9)
    return png(8, 8, bytes(8 * 25), chunk(kind, data))


def with_many_texts(count: int) -> bytes:
    """A PNG with many compressed texts, each just below Pillow's limit."""
    text = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(1_000_000), 9))
    return png(8, 8, bytes(8 * 25), *[text] * count)


def with_exif(data: bytes) -> bytes:
    """A JPEG with this EXIF block."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=b"Exif\x00\x00" + data)
    return buffer.getvalue()


def large(kind: str, mode: str, side: int = 10_000) -> bytes:
    """A picture of as many pixels as are accepted."""
    buffer = io.BytesIO()
    Image.new(mode, (side, MAX_PIXELS // side)).save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {}))
    return buffer.getvalue()


def webp_header(width: int, height: int) -> bytes:
    """An animated WebP of this canvas, with one frame that is not there."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    frame = bytes(6) + canvas + bytes(4) + small("WEBP")[12:]
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def hostile() -> dict[str, Callable[[], bytes]]:
    """What makes each hostile file, by a name that says what is hostile about it."""
    harmless = small("PNG")
    exif_of_links = tiff({0x8769: (4, 1, 8), 0x8825: (4, 1, 8), 0x0112: (3, 1, 6)})
    exif_of_bytes = tiff({0x0112: (3, 0xFFFFFFF, 8), 0x9286: (7, 0x7FFFFFFF, 8)})
    return {
        "png of 16 gigapixels": lambda: png(2**17, 2**17, b""),
        "png of no width": lambda: png(0, 7, b""),
        "png of no height": lambda: png(7, 0, b""),
        "png of 2^31 by 1": lambda: png(2**31 - 1, 1, b""),
        "png that unpacks into more than it says": lambda: png(8, 8, bytes(100_000_000)),
        "png of 64 bits a pixel": lambda: png(10_000, 10_000, bytes(1), depth=16, colour=6),
        "png with a zTXt bomb": lambda: with_text(b"zTXt", 100_000_000),
        "png with an iTXt bomb": lambda: with_text(b"iTXt", 100_000_000),
        "png with an iCCP bomb": lambda: with_text(b"iCCP", 100_000_000),
        "png with many texts": lambda: with_many_texts(500),
        "png of 4 billion frames": lambda: apng(2**32 - 1),
        "png that is also a zip": lambda: harmless + b"PK\x05\x06" + bytes(18),
        "png that is also html": lambda: harmless + b"<script>alert(1)</script>",
        "png cut in the middle": lambda: harmless[: len(harmless) // 2],
        "gif of a huge canvas": lambda: gif((65_535, 65_535), (0, 0, 4, 4)),
        "gif of a frame beyond its canvas": lambda: gif((4, 4), (65_000, 65_000, 4, 4)),
        "gif of a huge frame": lambda: gif((4, 4), (0, 0, 65_535, 65_535)),
        "gif of no size": lambda: gif((0, 0), (0, 0, 0, 0)),
        "webp of a huge canvas": lambda: webp_header(2**14 - 1, 2**14 - 1),
        "webp of a canvas beyond its format": lambda: webp_header(2**24, 2**24),
        "tiff of a huge tile": lambda: tiff_of_tiles(16, 16_384),
        "tiff of an impossible tile": lambda: tiff_of_tiles(16, 2**20),
        "tiff of 20,000 pages in a circle": lambda: tiff_of_pages(20_000),
        "tiff of 65,535 samples": lambda: tiff({256: (4, 1, 9), 257: (4, 1, 9), 277: (3, 1, 65_535), 258: (3, 65_535, 8)}),
        "tiff of no size": lambda: tiff({256: (4, 1, 0), 257: (4, 1, 0), 262: (3, 1, 1)}),
        "jpeg of 5,000 scans": lambda: jpeg_of_scans(2000, 5000),
        "jpeg with exif in a circle": lambda: with_exif(exif_of_links),
        "jpeg with exif of gigabytes": lambda: with_exif(exif_of_bytes),
        "jpeg of pixels as many as are accepted": lambda: large("JPEG", "CMYK"),
        "png of pixels as many as are accepted": lambda: large("PNG", "RGBA"),
        "bmp of 2 gigapixels": lambda: (
            b"BM" + struct.pack("<IIIIIIHHIIIIII", 54, 0, 54, 40, 46_000, 46_000, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
        "nothing": lambda: b"",
    }
