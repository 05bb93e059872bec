"""Two evaluated runs side by side, where their figures may be compared."""

from attune.errors import EvaluationError
from attune.evaluation.comparison import ZERO_SHOT, Row, Section, comparison
from attune.evaluation.kept_ranks import Ranks, query_values
from attune.evaluation.tables import query_rows
from attune.schemas import EvaluationResult, FinetuningRun


def compare(one: FinetuningRun, other: FinetuningRun, ranks: tuple[Ranks, Ranks] | None = None) -> Section:
    """The headline of two runs: `before` is the one run's model, `after` the other's.

    Classification is among it only if both runs told the same classes apart, by the same prompts.

    Args:
        one: an evaluated run.
        other: another.
        ranks: of the one and of the other, see `attune.evaluation.kept_ranks`; without them there are no intervals.

    Raises:
        EvaluationError: if they were not measured alike, see `refuse_unlike`.
    """
    refuse_unlike(one, other)
    left, right = one.evaluation, other.evaluation
    rows = [
        Row(metric=row.metric, before=row.after, after=right.after.get(row.metric))
        for row in comparison(left).rows
        if row.metric not in ZERO_SHOT or _same_classes(left, right)
    ]
    sure = _sure(*ranks) if ranks else {}
    said = (
        "Differences are the second minus the first, with their 95 % intervals (paired bootstrap over pictures)."
        if ranks
        else "A run that an earlier version evaluated did not keep the ranks that intervals come from: evaluate it again."
    )
    return Section(
        name="runs",
        title="Two runs",
        definition=f"Figures of the models of two runs on one held-out part with one preprocessing. {said}",
        rows=[sure.get(row.metric, row) for row in rows],
    )


def refuse_unlike(one: FinetuningRun, other: FinetuningRun) -> None:
    """Passes if two runs were measured on one held-out part with one preprocessing. Models may differ: these are compared.

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


def _sure(one: Ranks, other: Ranks) -> dict[str, Row]:
    """By metric, figures with the interval of their difference."""
    right = query_values(other)
    found: dict[str, Row] = {}
    for kind, (values, pictures) in query_values(one).items():
        if kind in right:
            found |= {row.metric: row for row in query_rows(values, right[kind][0], pictures)}
    return found


def _same_classes(one: EvaluationResult, other: EvaluationResult) -> bool:
    return one.fingerprints.get("classes") == other.fingerprints.get("classes")


def _measured_on(run: FinetuningRun) -> str:
    data = run.settings.get("eval_data")
    return repr(data) if data else f"a part of {run.settings.get('train_data')!r}"
