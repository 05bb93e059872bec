"""Sixty pictures of coloured shapes, as many different datasets of them as are wanted, and what a service has kept."""

import io
from pathlib import Path

from PIL import Image, ImageDraw

from attune.data.shards import find_parts, read_rows
from attune.schemas import TrainingExample

COLOURS = ("red", "green", "blue", "orange", "pink")
WIDTHS = range(4, 28, 2)


def examples(tag: str) -> list[TrainingExample]:
    """Examples whose captions tell them apart from those of another tag."""
    return [
        TrainingExample(
            image=_bar(colour, width),
            captions=[f"a {colour} bar of width {width}, {tag}", f"{colour}, {width} wide, {tag}"],
            source=f"{colour} {width}",
        )
        for colour in COLOURS
        for width in WIDTHS
    ]


def is_whole(home: Path, fingerprint: str, tag: str) -> bool:
    """Whether a dataset holds every one of the examples once, and no other."""
    rows = read_rows(find_parts(home / "datasets" / "content" / fingerprint)).to_pylist()
    kept = sorted((row["source"], row["captions"]) for row in rows)
    return kept == sorted((example.source, example.captions) for example in examples(tag))


def _bar(colour: str, width: int) -> bytes:
    image = Image.new("RGB", (40, 36), "white")
    ImageDraw.Draw(image).rectangle((4, 4, 4 + width, 30), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
