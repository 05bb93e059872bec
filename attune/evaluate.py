"""The Evaluator's work: a run's model before and after on the held-out split, and the report.

report/metrics.json   every figure with its interval, in every mode, and what the figures depend on
report/index.html     the same for people, with the rest of what `attune.report.page` writes
"""

import json
from pathlib import Path

from attune.comparison import Section
from attune.config import check_settings
from attune.data.duplicates import thumbnails
from attune.data.pairs import Pairs
from attune.data.parts import Parts, load_parts
from attune.device import choose_device
from attune.errors import EvaluationError
from attune.evaluation.class_figures import class_figures, zero_shot_facts
from attune.evaluation.classes import Classes, find_classes
from attune.evaluation.effects import effects
from attune.evaluation.leakage import Leaks, find_leaks
from attune.evaluation.look import Look, look, pixels_of
from attune.evaluation.measure import image_of_text, split_fingerprint
from attune.evaluation.provenance import preprocessing_fingerprint
from attune.evaluation.retrieval_figures import headline, retention, retrieval_figures
from attune.evaluation.tables import Figures, tables
from attune.evaluation.zero_shot import templates
from attune.files import write_text
from attune.models.clip import Clip, load_clip
from attune.report.material import Material
from attune.report.page import write_report
from attune.runs import RunFolder, read_json
from attune.schemas import EvaluationResult
from attune.settings import FinetuningSettings


def evaluate(folder: RunFolder) -> EvaluationResult:
    """Measures the starting weights and the chosen ones on the held-out split, in fp32, and writes the report.

    Both go through the same code and the same pixels in one process, so nothing but the weights differs. A run that
    trains nothing measures its model, beside its baseline if it has one.

    Raises:
        EvaluationError: if there is nothing to measure: embeddings that are no numbers, or a baseline that takes pictures
            in another way.
    """
    run = folder.load()
    settings = check_settings(run.settings)
    parts = load_parts(settings, run.train_fingerprint, run.eval_fingerprint, run.retention_fingerprint)
    classes, prompts = find_classes(parts, settings.seed), templates(settings.prompt_templates)
    before, after, clip = _look_at_both(folder, settings, parts, classes, prompts)
    leaks = _leaks(clip, parts, settings)
    owner = image_of_text(parts.test)
    [first] = tables([headline(before.test, owner)] if before else None, [headline(after.test, owner)])
    result = EvaluationResult(
        images=len(parts.test),
        captions=len(after.test.texts),
        split_fingerprint=split_fingerprint(parts.test),
        before=before.test.metrics if before else {},
        after=after.test.metrics,
        difference_low={row.metric: row.low for row in first.rows if row.low is not None},
        difference_high={row.metric: row.high for row in first.rows if row.high is not None},
        p_values={row.metric: row.p_value for row in first.rows if row.p_value is not None},
        fingerprints={
            "preprocessing": after.preprocessing,
            **({"before": before.weights} if before else {}),
            "after": after.weights,
        },
        warnings=[leaks.describe()] if leaks.rows else [],
    )
    facts = result.model_dump(exclude={"id"}) | {
        "sections": [section.model_dump() for section in _sections(before, after, parts, classes, str(clip.device))],
        "zero_shot": zero_shot_facts(after, classes, prompts) if classes else {},
        "leakage": leaks.describe(),
        "leaked": [parts.test.images[row] for row in leaks.rows],
        "slices_of": "Text to image recall@5",
        **(effects(before.test, after.test, parts.test, leaks.rows) if before else {}),
        "environment": read_json(folder.path / "environment.json"),
    }
    write_text(folder.report / "metrics.json", json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_report(
        folder.report,
        Material(
            run=run.model_copy(update={"evaluation": result}),
            facts=facts,
            events=list(folder.events()),
            test=parts.test,
            cache=pixels_of(clip, parts.test),
            before=before.test if before else None,
            after=after.test,
        ),
    )
    folder.log(_summary(result))
    return result


def _look_at_both(
    folder: RunFolder, settings: FinetuningSettings, parts: Parts, classes: Classes | None, prompts: list[str]
) -> tuple[Look | None, Look, Clip]:
    """What the model before makes of the data, if there is one; what the model after does; and the latter."""
    device = choose_device(settings.devices)
    clip = load_clip(settings.model, device, settings.seed)
    if settings.trains:
        clip.load_weights(folder.start_weights)
        before = look(clip, parts, classes, prompts)
        clip.load_weights(folder.chosen_weights)
        return before, look(clip, parts, classes, prompts), clip
    if settings.baseline is None:
        return None, look(clip, parts, classes, prompts), clip
    baseline = load_clip(settings.baseline, device, settings.seed)
    one, other = (preprocessing_fingerprint(model.preprocess) for model in (baseline, clip))
    if one != other:
        raise EvaluationError(
            f"{settings.baseline!r} and {settings.model!r} take pictures in different ways (preprocessing {one[:12]} and "
            f"{other[:12]}), so a difference would not be one of the models alone. Evaluate each in a run of its own"
        )
    return look(baseline, parts, classes, prompts), look(clip, parts, classes, prompts), clip


def _leaks(clip: Clip, parts: Parts, settings: FinetuningSettings) -> Leaks:
    """Held-out pictures that are in the training data: the run's own, or that of the finished run it measures."""
    seen = parts.train if len(parts.train) else _trained_on(settings.model)
    if seen is None:
        return Leaks(exact=[], near=[], captions=0)
    train, test = (pixels_of(clip, pairs) for pairs in (seen, parts.test))
    small = thumbnails(train.pixels)
    held_out = small if seen.fingerprint == parts.test.fingerprint else thumbnails(test.pixels)
    return find_leaks(seen, small[train.rows(seen.images)], parts.test, held_out[test.rows(parts.test.images)])


def _trained_on(model: str) -> Pairs | None:
    """What the model of a finished run of this service learnt from; None of any other model."""
    folder = RunFolder(Path(model).parent)
    if Path(model) != folder.artifact or not (folder.path / "run.json").is_file():
        return None
    run = folder.load()
    parts = load_parts(check_settings(run.settings), run.train_fingerprint, run.eval_fingerprint)
    return parts.train if len(parts.train) else None


def _sections(before: Look | None, after: Look, parts: Parts, classes: Classes | None, device: str) -> list[Section]:
    """Every table beside the headline."""
    owner = image_of_text(parts.test)

    def figures(one: Look) -> list[Figures]:
        return [
            *retrieval_figures(one.test, owner, device),
            *(class_figures(one, classes, device) if classes else []),
            *([retention(one.retention, image_of_text(parts.retention))] if one.retention and parts.retention else []),
        ]

    return tables(figures(before) if before else None, figures(after))


def _summary(result: EvaluationResult) -> str:
    names = {"text->image": "text_to_image_recall@5", "image->text": "image_to_text_recall@5"}
    if not result.before:
        return "recall@5: " + ", ".join(f"{label} {result.after[name]:.4f}" for label, name in names.items())
    return "recall@5: " + ", ".join(
        f"{label} {result.before[name]:.4f} before, {result.after[name]:.4f} after" for label, name in names.items()
    )
