"""Example queries a person can look at, with their first hits before and after."""

import textwrap
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import Measurement, image_of_text

EXAMPLES = 12
HITS = 5


def pick_examples(test: Pairs, before: Measurement, after: Measurement, seed: int) -> list[dict[str, Any]]:
    """Random text queries with their first hits before and after; random, so that losses show beside gains."""
    captions = test.texts
    owner = image_of_text(test)
    chosen = np.random.default_rng(seed).permutation(len(captions))[:EXAMPLES]
    return [
        {
            "query": captions[query],
            "image": int(owner[query]),
            "rank_before": int(before.ranks["text_to_image"][query]),
            "rank_after": int(after.ranks["text_to_image"][query]),
            "hits_before": _hits(before, query, test),
            "hits_after": _hits(after, query, test),
        }
        for query in chosen
    ]


def _hits(measurement: Measurement, query: int, test: Pairs) -> list[dict[str, Any]]:
    scores = measurement.images @ measurement.texts[query]
    best = np.argsort(-scores, kind="stable")[:HITS]
    return [{"image": int(row), "caption": test.captions[row][0], "score": round(float(scores[row]), 4)} for row in best]


def contact_sheet(examples: list[dict[str, Any]], test: Pairs, cache: PixelCache, cell: int = 72) -> Image.Image:
    """One row a query: its text, the right picture, the first hits before, the first hits after; right ones framed."""
    rows = cache.rows(test.images)
    font = ImageFont.load_default(size=14)
    text_width, gap = 300, 24
    columns = [text_width + gap // 2, text_width + cell + 2 * gap, text_width + (1 + HITS) * cell + 4 * gap]
    sheet = Image.new("RGB", (columns[2] + HITS * cell + gap, (cell + 8) * len(examples) + 36), "white")
    draw = ImageDraw.Draw(sheet)
    for left, title in zip([8, *columns], ["query", "right", "before", "after"], strict=True):
        draw.text((left, 8), title, fill="black", font=font)
    for number, example in enumerate(examples):
        top = 32 + number * (cell + 8)
        draw.multiline_text((8, top + 4), _wrapped(example["query"]), fill="black", font=font)
        _paste(sheet, cache.pixels[rows[example["image"]]], columns[0], top, cell)
        for left, key in ((columns[1], "hits_before"), (columns[2], "hits_after")):
            for place, hit in enumerate(example[key]):
                x = left + place * cell
                _paste(sheet, cache.pixels[rows[hit["image"]]], x, top, cell)
                if hit["image"] == example["image"]:
                    draw.rectangle((x, top, x + cell - 2, top + cell - 2), outline="green", width=3)
    return sheet


def _paste(sheet: Image.Image, pixels: np.ndarray, left: int, top: int, cell: int) -> None:
    picture = Image.fromarray(pixels.transpose(1, 2, 0))
    picture.thumbnail((cell - 10, cell - 10))
    sheet.paste(picture, (left + 4, top + 4))


def _wrapped(text: str, width: int = 40, lines: int = 4) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
