"""The Evaluator's work: a run's model before and after on the held-out split, and the report.

report/metrics.json   every figure in every mode, means over queries with an interval, and what the figures depend on
report/ranks.npz      the rank of every query, see `attune.evaluation.kept_ranks`
report/index.html     the figures for people, with the rest of what `attune.report.page` writes
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from attune.config import check_settings
from attune.data.pairs import Pairs, joined
from attune.data.parts import Parts, load_parts
from attune.device import choose_device
from attune.errors import EvaluationError
from attune.evaluation.cautions import cautions
from attune.evaluation.class_figures import zero_shot_facts, zero_shot_ranks
from attune.evaluation.classes import Classes, classes_fingerprint, find_classes
from attune.evaluation.comparison import Row, Section, sides
from attune.evaluation.effects import effects
from attune.evaluation.kept_ranks import FILE, pack
from attune.evaluation.leakage import Leaks, count_negatives, find_leaks, find_match_leaks, find_text_leaks, looks
from attune.evaluation.look import Look, look
from attune.evaluation.look_alikes import look_alikes
from attune.evaluation.measure import pixels_of, queries_of, split_fingerprint
from attune.evaluation.provenance import preprocessing_fingerprint
from attune.evaluation.sections import sections
from attune.evaluation.zero_shot import templates
from attune.files import whole_file, write_text
from attune.kinds import IMAGE
from attune.models.clip import Clip
from attune.models.options import sized
from attune.models.source import find_model
from attune.report.material import Material
from attune.report.page import write_report
from attune.runs.folder import RunFolder, read_json
from attune.runs.life_cycle import last_attempt
from attune.runs.models import ancestors, load_named, locate
from attune.schemas import EvaluationResult
from attune.settings import FinetuningSettings, ModelOptions

Shrunk = Callable[[Pairs, list[str]], np.ndarray]
"""What pictures of a dataset are compared by, by their keys: see `attune.evaluation.leakage.looks`."""


def evaluate(folder: RunFolder) -> EvaluationResult:
    """Measures the starting weights and the chosen ones on the held-out split, in fp32, and writes the report.

    Both go through the same code and the same pixels in one process, so nothing but the weights differs: with
    `model_options`, the starting weights are those in the shape that the options ask for. A run that
    trains nothing measures its model, beside its baseline if it has one. Its history says what is being done.

    Raises:
        EvaluationError: if there is nothing to measure: embeddings that are no numbers, or a baseline that takes pictures
            in another way.
    """
    run = folder.load()
    settings = check_settings(run.settings)
    parts = load_parts(settings, run.train_fingerprint, run.eval_fingerprint, run.retention_fingerprint, run.val_fingerprint)
    graded = parts.test.is_graded
    classes, prompts = find_classes(parts, settings.seed), templates(settings.prompt_templates)
    kind = parts.test.kind
    named = classes if kind is IMAGE else None  # prompts tell pictures apart by texts
    before, after, clip = _look_at_both(folder, settings, parts, classes, prompts)
    _say(folder, f"looking for held-out {kind.items} among those it learnt from")
    shrunk = _shrinking(clip)
    leaks = _leaks(shrunk, parts, settings)
    unlike = {}
    if kind.is_single:
        unlike = look_alikes(parts.test, None if kind.of_texts else shrunk(parts.test, parts.test.images))
    dims = settings.model_options.matryoshka_dims or clip.matryoshka_dims
    say = partial(_say, folder)
    first, *others = sections(before, after, parts, classes, dims, sides(run), say, str(clip.device))
    rows = [*first.rows, *_zero_shot_rows(others)]
    result = EvaluationResult(
        images=0 if kind.of_texts else len(parts.test),
        texts=len(parts.test) if kind.of_texts else 0,
        captions=0 if kind.has_matches else len(after.test.texts),
        matches=len(after.test.texts) if kind.has_matches else 0,
        dimension=parts.test.dimension,
        split_fingerprint=split_fingerprint(parts.test),
        before=(before.test.metrics | _known(rows, "before")) if before else {},
        after=after.test.metrics | _known(rows, "after"),
        difference_low=_known(rows, "low"),
        difference_high=_known(rows, "high"),
        p_values=_known(rows, "p_value"),
        after_low=_known(rows, "after_low"),
        after_high=_known(rows, "after_high"),
        fingerprints={
            **({"preprocessing": after.preprocessing} if not kind.of_texts else {}),
            **({"before": before.weights} if before else {}),
            "after": after.weights,
            **({"classes": classes_fingerprint(named, prompts)} if named else {}),
        },
        warnings=[
            *([leaks.describe()] if leaks.rows else []),
            *cautions(parts, [row for one in others for row in one.rows], unlike),
        ],
    )
    facts = result.model_dump(exclude={"id"}) | {
        "sections": [section.model_dump() for section in others],
        "zero_shot": zero_shot_facts(after, named, prompts) if named else {},
        "leakage": leaks.describe(),
        "leaked": [parts.test.images[row] for row in leaks.rows],
        **({"slices_of": f"{kind.words[0].capitalize()} recall@5"} if not graded else {}),
        **(effects(before.test, after.test, parts.test, leaks.rows) if before and not graded else {}),
        "environment": read_json(folder.path / "environment.json"),
    }
    _say(folder, "writing the report")
    write_text(folder.report / "metrics.json", json.dumps(facts, indent=2, allow_nan=False) + "\n")
    with whole_file(folder.path / FILE) as draft:
        draft.write_bytes(pack(_ranks(before, after, parts.test, named)))
    write_report(
        folder.report,
        Material(
            run=run.model_copy(update={"evaluation": result}),
            facts=facts,
            events=last_attempt(folder),
            test=parts.test,
            cache=None if parts.test.dimension else pixels_of(clip, parts.test),
            before=before.test if before else None,
            after=after.test,
            model=clip.config,
        ),
    )
    folder.log(_summary(result, sides(run)))
    return result


def _look_at_both(
    folder: RunFolder, settings: FinetuningSettings, parts: Parts, classes: Classes | None, prompts: list[str]
) -> tuple[Look | None, Look, Clip]:
    """What the model before makes of the data, if there is one; what the model after does; and the latter."""
    device = choose_device(settings.devices)
    kind = parts.test.kind
    data = kind.counted(len(parts.test), len(parts.test.texts), held_out=True)
    dimension = parts.test.dimension

    def load(model: str, options: ModelOptions) -> Clip:
        return load_named(model, device, settings.seed, sized(options, find_model(locate(model)).library, dimension))

    clip = load(settings.model, settings.model_options)
    if settings.trains:
        clip.load_weights(folder.start_weights)
        _say(folder, f"measuring the model before training: {data}")
        before = look(clip, parts, classes, prompts)
        clip.load_weights(folder.chosen_weights)
        _say(folder, "measuring the model after training")
        return before, look(clip, parts, classes, prompts), clip
    if settings.baseline is None:
        _say(folder, f"measuring {settings.model}: {data}")
        return None, look(clip, parts, classes, prompts), clip
    baseline = load(settings.baseline, ModelOptions())
    one, other = (preprocessing_fingerprint(model.preprocess) for model in (baseline, clip))
    if one != other and not kind.of_texts:
        raise EvaluationError(
            f"{settings.baseline!r} and {settings.model!r} take pictures in different ways (preprocessing {one[:12]} and "
            f"{other[:12]}), so a difference would not be one of the models alone. Evaluate each in a run of its own"
        )
    _say(folder, f"measuring the baseline {settings.baseline}: {data}")
    before = look(baseline, parts, classes, prompts)
    _say(folder, f"measuring {settings.model}")
    return before, look(clip, parts, classes, prompts), clip


def _say(folder: RunFolder, what: str) -> None:
    folder.log(what, kind="evaluation")


def _shrinking(clip: Clip) -> Shrunk:
    """A function to what pairs' pictures, or matches, of these keys are compared by; each dataset is looked at once."""
    small: dict[str, np.ndarray] = {}

    def shrunk(pairs: Pairs, keys: list[str]) -> np.ndarray:
        cache = pixels_of(clip, pairs)
        assert cache is not None  # there are pictures
        if pairs.fingerprint not in small:
            small[pairs.fingerprint] = looks(cache.pixels)
        pixels: np.ndarray = small[pairs.fingerprint][cache.rows(keys)]
        return pixels

    return shrunk


def _leaks(shrunk: Shrunk, parts: Parts, settings: FinetuningSettings) -> Leaks:
    """Held-out pictures that are in the training data: the run's own, and that of the finished runs its models come from."""
    models = [model for model in (settings.model, settings.baseline) if model]
    runs = {folder.reference: folder for model in models for folder in ancestors(model)}
    kind = parts.test.kind
    learnt = ((name, _learnt_from(folder)) for name, folder in runs.items())
    earlier = {name: pairs for name, pairs in learnt if len(pairs) and pairs.kind.goes_with(kind)}
    trained = [pairs for pairs in (parts.train, *earlier.values()) if len(pairs)]
    if not trained:
        return Leaks(exact=[], near=[], captions=0)
    seen = [pairs.seen_as(kind) for pairs in trained]
    negatives = count_negatives((text for pairs in trained for text in pairs.wrong_texts), parts.test)
    if kind.of_texts:
        return replace(find_text_leaks(joined(seen), parts.test), negatives=negatives, earlier=tuple(earlier))

    def pictures(several: list[Pairs]) -> np.ndarray:
        matches = several if kind.has_matches else []
        return np.concatenate([shrunk(one, one.images) for one in several] + [shrunk(one, one.texts) for one in matches])

    find = find_match_leaks if kind.has_matches else find_leaks
    leaks = find(joined(seen), pictures(seen), parts.test, pictures([parts.test]))
    return replace(leaks, negatives=negatives, earlier=tuple(earlier))


def _learnt_from(folder: RunFolder) -> Pairs:
    """The training part of a finished run; empty if it trained nothing."""
    run = folder.load()
    settings = check_settings(run.settings)
    return load_parts(settings, run.train_fingerprint, run.eval_fingerprint, val_fingerprint=run.val_fingerprint).train


def _known(rows: list[Row], field: str) -> dict[str, float]:
    """One of the numbers of each row that has it, by metric."""
    return {row.metric: value for row in rows if (value := getattr(row, field)) is not None}


def _zero_shot_rows(sections: list[Section]) -> list[Row]:
    """The rows of zero-shot classification under the names they have in the headline."""
    return [
        row.model_copy(update={"metric": f"zero_shot_{row.metric}"})
        for section in sections
        if section.name == "zero_shot"
        for row in section.rows
    ]


def _ranks(before: Look | None, after: Look, test: Pairs, classes: Classes | None) -> dict[str, np.ndarray]:
    """What `attune.evaluation.kept_ranks` keeps."""
    found = {f"{kind}_picture": rows for kind, rows in queries_of(test).items() if kind in after.test.ranks}
    if classes:
        found["zero_shot_picture"] = classes.rows
    for when, one in (("before", before), ("after", after)):
        if one is not None:
            found |= {f"{kind}_{when}": ranks for kind, ranks in one.test.ranks.items()}
            if classes:
                found[f"zero_shot_{when}"] = zero_shot_ranks(one, classes)
    return found


def _summary(result: EvaluationResult, names: tuple[str, str]) -> str:
    kind = result.kind
    metrics, what = {arrow: f"{name}_recall@5" for arrow, name in zip(kind.arrows, kind.directions, strict=True)}, "recall@5"
    if "spearman" in result.after:
        metrics, what = {name: name for name in ("spearman", "pearson")}, "correlation with scores"
    if not result.before:
        return f"{what}: " + ", ".join(f"{label} {result.after[name]:.4f}" for label, name in metrics.items())
    return f"{what}: " + ", ".join(
        f"{label} {result.before[name]:.4f} {names[0]}, {result.after[name]:.4f} {names[1]}"
        for label, name in metrics.items()
    )
