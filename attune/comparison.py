"""Before and after, row by row: what every table of an evaluation shows, on a terminal, a page and a model card."""

from pydantic import BaseModel, ConfigDict, Field

from attune.errors import EvaluationError
from attune.metrics import DIRECTIONS, KS
from attune.schemas import EvaluationResult


class Row(BaseModel):
    """One metric. What is not defined, or was not measured, is None."""

    model_config = ConfigDict(frozen=True)

    metric: str = Field(description="Such as `text_to_image_recall@5`.")
    before: float | None = Field(default=None, description="Of the starting model, or the baseline.")
    after: float | None = Field(default=None, description="Of the chosen weights, or the model that was evaluated.")
    low: float | None = Field(default=None, description="2.5 % end of after minus before.")
    high: float | None = Field(default=None, description="97.5 % end of after minus before.")
    p_value: float | None = Field(default=None, description="Two-sided, of no difference.")

    @property
    def label(self) -> str:
        """The metric in words: `text to image recall@5`."""
        return self.metric.replace("_", " ")

    @property
    def difference(self) -> str:
        """After minus before with a sign, and its interval in brackets; empty if one of them is missing."""
        if self.before is None or self.after is None:
            return ""
        text = f"{self.after - self.before:+.3f}"
        return text if self.low is None or self.high is None else f"{text} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def verdict(self) -> str:
        """`better` or `worse` only where the whole interval is on one side of zero, else empty."""
        low, high = self.low or 0.0, self.high or 0.0
        return "better" if low > 0 else "worse" if high < 0 else ""


class Section(BaseModel):
    """A table of metrics with one definition."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Short, for code: `retrieval`, `clip_benchmark`, `zero_shot`.")
    title: str = Field(description="For people.")
    definition: str = Field(description="What the figures mean, and by whose definition, in a sentence or two.")
    rows: list[Row] = Field(default_factory=list)


def comparison(result: EvaluationResult) -> Section:
    """The headline: recall@1, 5 and 10, MRR and median rank, text to image first."""
    names = [
        f"{direction}_{name}" for direction in DIRECTIONS for name in (*(f"recall@{k}" for k in KS), "mrr", "median_rank")
    ]
    return Section(
        name="headline",
        title="Retrieval",
        definition="recall@k is the share of queries with a right answer among the first k, as CLIP papers and "
        "CLIP_benchmark compute it (hit@k elsewhere). Intervals are 95 %, by paired bootstrap over pictures.",
        rows=[
            Row(
                metric=name,
                before=result.before.get(name),
                after=result.after.get(name),
                low=result.difference_low.get(name),
                high=result.difference_high.get(name),
                p_value=result.p_values.get(name),
            )
            for name in names
        ],
    )


def compare(one: EvaluationResult, other: EvaluationResult) -> Section:
    """The headline of two runs side by side, after training: `before` is the one run, `after` the other.

    Raises:
        EvaluationError: if they were not measured alike, see `refuse_unlike`.
    """
    refuse_unlike(one, other)
    return Section(
        name="runs",
        title="Two runs, after training",
        definition="Figures of the chosen weights of two runs on one held-out split with one preprocessing. An interval of "
        "their difference takes both runs' values of each query, which a run's result does not keep.",
        rows=[
            Row(metric=row.metric, before=one.after.get(row.metric), after=other.after.get(row.metric))
            for row in comparison(one).rows
        ],
    )


def refuse_unlike(one: EvaluationResult, other: EvaluationResult) -> None:
    """Passes if two results are of one split and one preprocessing. Weights may differ: these are what is compared.

    Raises:
        EvaluationError: if the split or the preprocessing differs, or if one of the results does not say which it was.
    """
    parts = {
        "held-out split": (one.split_fingerprint, other.split_fingerprint, "give both runs the same eval_data"),
        "preprocessing": (
            one.fingerprints.get("preprocessing", ""),
            other.fingerprints.get("preprocessing", ""),
            "choose models that take pictures alike",
        ),
    }
    problems = []
    for part, (left, right, remedy) in parts.items():
        if not (left and right):
            which = "neither" if not (left or right) else "only the second" if right else "only the first"
            problems.append(f"of the {part}, {which} has a fingerprint (evaluate both with this version)")
        elif left != right:
            problems.append(f"the {part} is {left[:12]} in the first and {right[:12]} in the second ({remedy})")
    if problems:
        raise EvaluationError(f"These two evaluations must not be compared: {'; '.join(problems)}")
