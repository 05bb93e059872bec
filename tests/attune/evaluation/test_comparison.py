import pytest

from attune.evaluation.comparison import Row, comparison, sides
from attune.schemas import EvaluationResult, FinetuningRun


def test_the_headline_has_both_directions_and_classes_where_they_were_measured() -> None:
    plain = EvaluationResult(before={"text_to_image_recall@1": 0.25}, after={"text_to_image_recall@1": 0.5})
    labelled = EvaluationResult(after={"zero_shot_acc1": 0.75, "zero_shot_mean_per_class_recall": 0.5})

    first, second = comparison(plain).rows[:2]

    assert (first.metric, first.before, first.after, first.difference) == ("text_to_image_recall@1", 0.25, 0.5, "+0.250")
    assert (second.before, second.after, second.difference) == (None, None, "")  # not measured
    assert "zero shot" not in comparison(plain).definition
    assert [row.label for row in comparison(labelled).rows[-2:]] == ["zero shot acc1", "zero shot mean per class recall"]
    assert "zero shot acc1" in comparison(labelled).definition


def test_two_models_are_before_and_after_or_a_baseline_and_a_model() -> None:
    assert sides(FinetuningRun(settings={"train_data": "a"})) == ("before", "after")
    assert sides(FinetuningRun(settings={"train_data": None, "eval_data": "a"})) == ("baseline", "model")


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.1, 0.4, 0.05, "better"),
        (-0.4, -0.1, 0.01, "worse"),
        (0.1, 0.4, 0.051, ""),
        (-0.4, -0.1, 0.5, ""),
        (-0.1, 0.4, 0.01, ""),
        (0.1, 0.4, None, "better"),  # of a version that kept none
        (None, None, 0.01, ""),
    ],
)
def test_better_and_worse_need_the_interval_and_the_p_value(
    low: float | None, high: float | None, p_value: float | None, verdict: str
) -> None:
    assert Row(metric="mrr", before=0.5, after=0.5, low=low, high=high, p_value=p_value).verdict == verdict


def test_a_model_alone_has_the_interval_of_its_figures() -> None:
    name = "text_to_image_recall@1"
    alone = comparison(EvaluationResult(after={name: 0.5}, after_low={name: 0.375}, after_high={name: 0.625}))
    beside = comparison(EvaluationResult(before={name: 0.25}, after={name: 0.5}))

    assert (alone.rows[0].interval, alone.rows[1].interval) == ("0.375 to 0.625", "")
    assert "Intervals are 95 %, by bootstrap over pictures" in alone.definition
    assert "Intervals are 95 %, of the difference, by paired bootstrap over pictures" in beside.definition
