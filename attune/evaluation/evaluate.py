"""The Evaluator's work: before and after on the held-out split, and the report.

report/metrics.json   both sets of figures, their difference and its confidence interval
report/examples.json  queries with their first hits before and after
report/examples.png   the same as pictures: query, hits before, hits after
"""

import json

from attune.config import check_settings
from attune.data.parts import load_parts
from attune.data.pixels import open_pixels
from attune.device import choose_device
from attune.evaluation.measure import image_of_text, measure, split_fingerprint
from attune.files import whole_file, write_text
from attune.metrics import difference_interval
from attune.models.clip import load_clip
from attune.report.gallery import contact_sheet, pick_examples
from attune.runs import RunFolder
from attune.schemas import EvaluationResult


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
