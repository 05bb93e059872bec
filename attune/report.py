"""The Evaluator's work: before and after on the held-out split, with example queries a person can look at.

report/metrics.json   both sets of figures, their difference and its confidence interval
report/examples.json  queries with their first hits before and after
report/examples.png   the same as pictures: query, hits before, hits after
"""

import json
import textwrap
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.data.parts import load_parts
from attune.data.pixels import PixelCache, open_pixels
from attune.device import choose_device
from attune.evaluation.measure import Measurement, image_of_text, measure, split_fingerprint
from attune.files import whole_file, write_text
from attune.metrics import difference_interval
from attune.models.clip import load_clip
from attune.runs import RunFolder
from attune.schemas import EvaluationResult

EXAMPLES = 12
HITS = 5


def evaluate(folder: RunFolder) -> EvaluationResult:
    """Measures the starting weights and the chosen ones on the held-out split, in fp32, and writes the report.

    Both go through the same code and the same pixels in one process, so nothing but the weights differs.
    """
    run = folder.load()
    settings = check_settings(run.settings)
    clip = load_clip(settings.model, choose_device(settings.devices), settings.seed)
    test = load_parts(settings, run.train_fingerprint, run.eval_fingerprint).test
    cache = open_pixels(test.fingerprint, clip.preprocess, clip.resize)

    clip.load_weights(folder.start_weights)
    before = measure(clip, test, cache)
    clip.load_weights(folder.chosen_weights)
    after = measure(clip, test, cache)

    owner = image_of_text(test)
    low, high = difference_interval(before.ranks, after.ranks, owner)
    result = EvaluationResult(
        images=len(test),
        captions=len(owner),
        split_fingerprint=split_fingerprint(test),
        before=before.metrics,
        after=after.metrics,
        difference_low=low,
        difference_high=high,
    )
    examples = pick_examples(test, before, after, settings.seed)
    write_text(folder.report / "metrics.json", json.dumps(result.model_dump(exclude={"id"}), indent=2) + "\n")
    write_text(folder.report / "examples.json", json.dumps(examples, indent=2, ensure_ascii=False) + "\n")
    with whole_file(folder.report / "examples.png") as draft:
        contact_sheet(examples, test, cache).save(draft, format="PNG")
    folder.log(
        "text->image recall@5 {:.4f} before, {:.4f} after; image->text {:.4f}, {:.4f}".format(
            *(m[f"{d}_recall@5"] for d in ("text_to_image", "image_to_text") for m in (before.metrics, after.metrics))
        )
    )
    return result


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
