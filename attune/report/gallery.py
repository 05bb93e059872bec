"""Example queries a person can look at, with their first hits before and after."""

import base64
import io
import textwrap
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.measure import Measurement, image_of_text, queries_of
from attune.kinds import IMAGE

EXAMPLES = 12
HITS = 5
SHOWN = 6
"""Examples of each kind on the page: with ten pictures each, what keeps the file small enough to send."""

THUMBNAIL = 96


def pick_examples(test: Pairs, before: Measurement | None, after: Measurement, seed: int) -> list[dict[str, Any]]:
    """Queries with their first hits before and after: `random` ones first, then those that got `better` and `worse`.

    They are texts that look for pictures; of pairs of texts or of pictures, items that look for what belongs to them; single
    items that look for others of their label. Of their hits the `right` ones are marked. Without `before` there are random
    ones only, with no `rank_before` and `hits_before`. A match has its number as `match`. Where captions have scores,
    nothing is looked for: there are none.
    """
    if test.is_graded:
        return []
    direction = test.kind.asked
    chosen = np.random.default_rng(seed).permutation(len(after.ranks[direction]))[:EXAMPLES]
    found = [{"kind": "random", **_example(direction, int(query), test, before, after)} for query in chosen]
    if before is None:
        return found
    changed = pick_changed(direction, test, before, after)
    return found + [{"kind": kind, **example} for kind, examples in changed.items() for example in examples]


def pick_changed(direction: str, test: Pairs, before: Measurement, after: Measurement) -> dict[str, list[dict[str, Any]]]:
    """The queries whose reciprocal rank rose most, as `better`, and those where it fell most, as `worse`.

    A picture is there once, however many of its captions gained: `SHOWN` of each at most.

    Args:
        direction: one of the data's kind.
        test: what was measured on.
        before: figures of the starting model.
        after: figures of the trained one.
    """
    gains = 1 / after.ranks[direction] - 1 / before.ranks[direction]
    owner = queries_of(test)[direction]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, sign in (("better", 1), ("worse", -1)):
        order = np.argsort(-sign * gains, kind="stable")
        order = order[sign * gains[order] > 0]
        first = np.sort(np.unique(owner[order], return_index=True)[1])[:SHOWN]
        found[name] = [_example(direction, int(query), test, before, after) for query in order[first]]
    return found


def _example(direction: str, query: int, test: Pairs, before: Measurement | None, after: Measurement) -> dict[str, Any]:
    to_image = direction == test.kind.directions[0] and not test.kind.is_single
    image = int(queries_of(test)[direction][query])
    example: dict[str, Any] = {"query": test.caption_names[query] if to_image else test.names[image], "image": image}
    if to_image and test.kind.has_matches:
        example["match"] = query
    for when, measurement in (("before", before), ("after", after)):
        if measurement is not None:
            example[f"rank_{when}"] = int(measurement.ranks[direction][query])
            example[f"hits_{when}"] = _hits(measurement, query, image, test, to_image)
    return example


def _hits(measurement: Measurement, query: int, image: int, test: Pairs, to_image: bool) -> list[dict[str, Any]]:
    """The first answers; of those that score alike, as everywhere, wrong ones first."""
    single = test.kind.is_single
    owner = np.arange(len(test)) if to_image or single else image_of_text(test)
    right = np.asarray(test.labels) == test.labels[image] if single else owner == image
    answers = measurement.images if to_image or single else measurement.texts
    scores = answers @ (measurement.texts[query] if to_image else measurement.images[image])
    captions = test.names if to_image or single else test.caption_names
    best = np.lexsort((right, -scores))
    best = best[best != image] if single else best
    return [
        {
            "image": int(owner[row]),
            "caption": captions[row],
            "right": bool(right[row]),
            "score": round(float(scores[row]), 4) if np.isfinite(scores[row]) else None,
            **({"match": int(row)} if test.kind.has_matches and not to_image else {}),
        }
        for row in best[:HITS]
    ]


def key_of(one: dict[str, Any], test: Pairs) -> str:
    """The key of the picture of an example, or of a hit: of the match that it is, or else of the item."""
    key: str = test.texts[one["match"]] if "match" in one else test.images[one["image"]]
    return key


def _right(image: int, test: Pairs) -> str:
    """The key of a picture that is a right answer to a query of this item."""
    if test.kind.has_matches:
        return test.captions[image][0]
    if test.kind.is_single:
        others = (row for row, label in enumerate(test.labels) if label == test.labels[image] and row != image)
        return test.images[next(others)]
    return test.images[image]


def contact_sheet(examples: list[dict[str, Any]], test: Pairs, cache: PixelCache, cell: int = 72) -> Image.Image:
    """One row a query: its text, the right picture, the first hits before and after if both are there; right ones framed.

    Of pairs of pictures, the query's picture stands in its text's place, and the first of its matches is the right one; of
    single pictures, another one of its label.
    """
    of_pictures = test.kind is not IMAGE

    def pixels(key: str) -> np.ndarray:
        found: np.ndarray = cache.pixels[cache.rows([key])[0]]
        return found

    font = ImageFont.load_default(size=14)
    text_width, gap = cell + 16 if of_pictures else 300, 24
    times = [when for when in ("before", "after") if examples and f"hits_{when}" in examples[0]]
    right = text_width + gap // 2
    columns = [right + cell + (gap // 2) * 3 + place * (HITS * cell + gap) for place in range(len(times))]
    sheet = Image.new("RGB", (columns[-1] + HITS * cell + gap, (cell + 8) * len(examples) + 36), "white")
    draw = ImageDraw.Draw(sheet)
    for left, title in zip([8, right, *columns], ["query", "right", *times], strict=True):
        draw.text((left, 8), title, fill="black", font=font)
    for number, example in enumerate(examples):
        top = 32 + number * (cell + 8)
        if of_pictures:
            _paste(sheet, pixels(key_of(example, test)), 8, top, cell)
        else:
            draw.multiline_text((8, top + 4), _wrapped(example["query"]), fill="black", font=font)
        _paste(sheet, pixels(_right(example["image"], test)), right, top, cell)
        for left, when in zip(columns, times, strict=True):
            for place, hit in enumerate(example[f"hits_{when}"]):
                x = left + place * cell
                _paste(sheet, pixels(key_of(hit, test)), x, top, cell)
                if hit["right"]:
                    draw.rectangle((x, top, x + cell - 2, top + cell - 2), outline="green", width=3)
    return sheet


def thumbnail(pixels: np.ndarray) -> str:
    """A small picture as a `data:` address, to stand in a page.

    Args:
        pixels: uint8 (3, height, width).
    """
    picture = Image.fromarray(pixels.transpose(1, 2, 0))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _paste(sheet: Image.Image, pixels: np.ndarray, left: int, top: int, cell: int) -> None:
    picture = Image.fromarray(pixels.transpose(1, 2, 0))
    picture.thumbnail((cell - 10, cell - 10))
    sheet.paste(picture, (left + 4, top + 4))


def _wrapped(text: str, width: int = 40, lines: int = 4) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
