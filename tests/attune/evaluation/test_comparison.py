from attune.evaluation.comparison import comparison, sides
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
