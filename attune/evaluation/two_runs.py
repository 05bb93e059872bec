"""Two evaluated runs side by side, where their figures may be compared."""

from attune.errors import EvaluationError
from attune.evaluation.comparison import ZERO_SHOT, Row, Section, comparison
from attune.evaluation.kept_ranks import Ranks, query_values
from attune.evaluation.tables import query_rows
from attune.schemas import FinetuningRun


def compare(one: FinetuningRun, other: FinetuningRun, ranks: tuple[Ranks, Ranks] | None = None) -> Section:
    """The headline of two runs: `before` is the one run's model, `after` the other's.

    Classification is among it only if both runs told the same classes apart, by the same prompts; `notes` say why not.

    Args:
        one: an evaluated run.
        other: another.
        ranks: of the one and of the other, see `attune.evaluation.kept_ranks`; without them there are no intervals.

    Raises:
        EvaluationError: if they were not measured alike, see `refuse_unlike`.
    """
    refuse_unlike(one, other)
    left_out = ZERO_SHOT if _why_left_out(one, other) else ()
    rows = [
        Row(metric=row.metric, before=row.after, after=other.evaluation.after.get(row.metric))
        for row in comparison(one.evaluation).rows
        if row.metric not in left_out
    ]
    sure = _sure(*ranks, {row.metric for row in rows}) if ranks else {}
    no_ranks = "A run that an earlier version evaluated did not keep the ranks that intervals come from: evaluate it again."
    if "spearman" in one.evaluation.after:
        no_ranks = "Runs keep no similarities of pairs with scores, so differences have no intervals here."
    said = (
        "Differences are the second minus the first, with their 95 % intervals (paired bootstrap over "
        f"{one.evaluation.kind.items})."
        if sure
        else no_ranks
    )
    return Section(
        name="runs",
        title="Two runs",
        definition=f"Figures of the models of two runs on one held-out part with one preprocessing. {said}",
        rows=[sure.get(row.metric, row) for row in rows],
    )


def notes(one: FinetuningRun, other: FinetuningRun) -> list[str]:
    """What a reader of `compare` should know: why classification is left out, if it is, and what each run warns of."""
    why = _why_left_out(one, other)
    warned: dict[str, list[str]] = {}
    for run in (one, other):
        for warning in run.evaluation.warnings:
            warned.setdefault(warning, []).append(run.reference)
    return [
        *([f"classification is left out: {why}"] if why else []),
        *(f"{' and '.join(names)}: {warning}" for warning, names in warned.items()),
    ]


def refuse_unlike(one: FinetuningRun, other: FinetuningRun) -> None:
    """Passes if two runs were measured on one held-out part with one preprocessing. Models may differ: these are compared.

    Preprocessing is that of pictures: of texts nothing is asked.

    Raises:
        EvaluationError: if the part or the preprocessing differs, or if one of the runs does not say which it was.
    """
    what = {
        "held-out part": ([run.evaluation.split_fingerprint for run in (one, other)], "give both the same eval_data"),
        "preprocessing": (
            [run.evaluation.fingerprints.get("preprocessing", "") for run in (one, other)],
            "choose models that take pictures alike",
        ),
    }
    if one.evaluation.kind.of_texts and other.evaluation.kind.of_texts:
        del what["preprocessing"]
    problems = []
    for part, (codes, remedy) in what.items():
        missing = [run.reference for run, code in zip((one, other), codes, strict=True) if not code]
        if missing:
            problems.append(f"the {part} of {' and '.join(missing)} is not known (evaluate again with this version)")
        elif codes[0] != codes[1]:
            of_each = (
                f"{_measured_on(run)} ({code[:12]}) in {run.reference}"
                if part == "held-out part"
                else f"{code[:12]} in {run.reference}"
                for run, code in zip((one, other), codes, strict=True)
            )
            problems.append(f"the {part} is {' and '.join(of_each)} ({remedy})")
    if problems:
        raise EvaluationError(f"These two evaluations must not be compared: {'; '.join(problems)}")


def _sure(one: Ranks, other: Ranks, metrics: set[str]) -> dict[str, Row]:
    """By metric, figures with the interval of their difference. Others than `metrics` may not be of the same queries."""
    right = query_values(other)
    found: dict[str, Row] = {}
    for kind, (values, pictures) in query_values(one).items():
        if kind in right and values.keys() & metrics:
            found |= {row.metric: row for row in query_rows(values, right[kind][0], pictures)}
    return found


def _why_left_out(one: FinetuningRun, other: FinetuningRun) -> str:
    """Why the two must not be compared in classification; empty if they may be, or neither has any."""
    without = [run.reference for run in (one, other) if not run.evaluation.after.keys() & set(ZERO_SHOT)]
    if without:
        return f"{without[0]} has none" if len(without) == 1 else ""
    codes = [run.evaluation.fingerprints.get("classes") for run in (one, other)]
    unknown = [run.reference for run, code in zip((one, other), codes, strict=True) if not code]
    if unknown:
        return f"the classes of {' and '.join(unknown)} are not known (evaluate again with this version)"
    if codes[0] == codes[1]:
        return ""
    prompts = [run.settings.get("prompt_templates") for run in (one, other)]
    if prompts[0] != prompts[1]:
        return f"other prompts ({prompts[0]!r} in {one.reference}, {prompts[1]!r} in {other.reference})"
    return "other labels or classes, or prompts that have changed"


def _measured_on(run: FinetuningRun) -> str:
    data = run.settings.get("eval_data")
    return repr(data) if data else f"a part of {run.settings.get('train_data')!r}"
