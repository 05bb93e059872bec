"""Before and after, row by row: what every table of an evaluation shows, on a terminal, a page and a model card."""

from pydantic import BaseModel, ConfigDict, Field

from attune.metrics import AT_R, KS, OF_AT_R
from attune.schemas import EvaluationResult, FinetuningRun

FEWEST = 20
"""Pictures to judge by: with fewer, 95 % intervals leave 0 out by chance more often than once in twenty."""

SIGNIFICANT = 0.05
"""The largest p-value of a difference that is called one."""

ZERO_SHOT = ("zero_shot_acc1", "zero_shot_acc5", "zero_shot_mean_per_class_recall")


class Row(BaseModel):
    """One metric. What is not defined, or was not measured, is None."""

    model_config = ConfigDict(frozen=True)

    metric: str = Field(description="Such as `text_to_image_recall@5`.")
    before: float | None = Field(default=None, description="Of the starting model, or the baseline.")
    after: float | None = Field(default=None, description="Of the chosen weights, or the model that was evaluated.")
    low: float | None = Field(default=None, description="2.5 % end of after minus before.")
    high: float | None = Field(default=None, description="97.5 % end of after minus before.")
    p_value: float | None = Field(default=None, description="Two-sided, of no difference.")
    after_low: float | None = Field(default=None, description="2.5 % end of `after` itself, if there is no `before`.")
    after_high: float | None = Field(default=None, description="97.5 % end of `after` itself, if there is no `before`.")

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
    def interval(self) -> str:
        """The interval of `after` itself: `0.500 to 0.625`; empty if there is none."""
        return "" if self.after_low is None or self.after_high is None else f"{self.after_low:.3f} to {self.after_high:.3f}"

    @property
    def verdict(self) -> str:
        """`better` or `worse` only where the whole interval is on one side of zero and the p-value agrees, else empty."""
        low, high = self.low or 0.0, self.high or 0.0
        if self.p_value is not None and self.p_value > SIGNIFICANT:
            return ""
        return "better" if low > 0 else "worse" if high < 0 else ""


class Section(BaseModel):
    """A table of metrics with one definition."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Short, for code: `retrieval`, `clip_benchmark`, `zero_shot`.")
    title: str = Field(description="For people.")
    definition: str = Field(description="What the figures mean, and by whose definition, in a sentence or two.")
    rows: list[Row] = Field(default_factory=list)


def sides(run: FinetuningRun) -> tuple[str, str]:
    """What the two models of a run are called: before and after training, or a baseline and a model."""
    return ("before", "after") if run.settings.get("train_data") else ("baseline", "model")


def comparison(result: EvaluationResult) -> Section:
    """The headline: recall@1, 5 and 10, MRR and median rank, captions to items first; where labelled, zero-shot accuracy.

    Where captions have scores, the correlations with them take the place of retrieval.
    """
    of_what = "of the difference, by paired" if result.before else "by"
    at_r = (AT_R,) if result.kind.is_single else ()
    figures = (*(f"recall@{k}" for k in KS), "mrr", *at_r, "median_rank")
    graded = "spearman" in result.after
    names = (
        ["spearman", "pearson"]
        if graded
        else [f"{direction}_{name}" for direction in result.kind.directions for name in figures]
    )
    classes = [name for name in ZERO_SHOT if name in result.after]
    of_classes = (
        "zero shot acc1 and acc5 are the shares of labelled pictures whose class's name is first, or among the first five; "
        "mean per class recall weighs all classes alike. "
    )
    of_retrieval = (
        "recall@k is the share of queries with a right answer among the first k, as CLIP papers and CLIP_benchmark compute "
        "it (hit@k elsewhere). "
    )
    of_scores = "Correlation of the cosine similarity of each pair with its score: of their ranks, and of the numbers. "
    return Section(
        name="headline",
        title="Correlation with scores" if graded else "Retrieval",
        definition=f"{of_scores if graded else of_retrieval}{OF_AT_R if at_r else ''}{of_classes if classes else ''}"
        f"Intervals are 95 %, {of_what} bootstrap over {result.kind.items}.",
        rows=[
            Row(
                metric=name,
                before=result.before.get(name),
                after=result.after.get(name),
                low=result.difference_low.get(name),
                high=result.difference_high.get(name),
                p_value=result.p_values.get(name),
                after_low=result.after_low.get(name),
                after_high=result.after_high.get(name),
            )
            for name in (*names, *classes)
        ],
    )
