"""Two runs side by side, on a terminal and as numbers."""

import pytest
from rich.console import Console

from attune.errors import EvaluationError
from attune.evaluation.comparison import Row, Section
from attune.schemas import EvaluationResult, FinetuningRun
from client.comparison import RunComparison, compare_runs
from client.transport import connect

RECALL = Row(metric="text_to_image_recall@5", before=0.5, after=0.625, low=0.0625, high=0.1875, p_value=0.0004)
MEDIAN = Row(metric="text_to_image_median_rank", before=3.0, after=2.0)


def compared(*rows: Row) -> RunComparison:
    evaluation = EvaluationResult(images=24, captions=48)
    one = FinetuningRun(name="plain", settings={"model": "starter", "eval_data": "emoji"}, evaluation=evaluation)
    leaking = EvaluationResult(images=24, captions=48, after={"zero_shot_acc1": 0.5}, warnings=["pictures leak: 3"])
    other = FinetuningRun(
        name="tuned", experiment="styles", settings={"model": "starter", "train_data": "noto"}, evaluation=leaking
    )
    section = Section(name="runs", title="Two runs", definition="There are no intervals: evaluate again.", rows=list(rows))
    return RunComparison(one, other, section)


def shown(comparison: RunComparison) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(comparison.table())
    return " ".join(capture.get().split())


def test_runs_are_named_with_their_models_intervals_and_p_values() -> None:
    text = shown(compared(RECALL, MEDIAN))

    assert "metric ┃ plain ┃ styles/tuned ┃ difference ┃ p ┃" in text
    assert "text to image recall@5 │ 0.500 │ 0.625 │ +0.125 (+0.062 to +0.188) │ < 0.001 │" in text
    assert "plain is starter as it is; styles/tuned is starter trained on noto" in text
    assert "difference: styles/tuned minus plain, with its 95 % interval" in text


def test_without_intervals_the_table_says_why() -> None:
    text = shown(compared(MEDIAN))

    assert "difference ┃ p" not in text
    assert "There are no intervals: evaluate again." in text


def test_the_numbers_are_there_by_metric() -> None:
    found = compared(RECALL, MEDIAN).metrics()

    assert found["one"] == {RECALL.metric: 0.5, MEDIAN.metric: 3.0}
    assert found["difference"] == {RECALL.metric: 0.125, MEDIAN.metric: -1.0}
    assert found["p_values"] == {RECALL.metric: 0.0004}


def test_below_the_table_stands_what_is_left_out_and_what_each_run_warns_of() -> None:
    comparison = compared(MEDIAN)

    assert comparison.notes == ["classification is left out: plain has none", "styles/tuned: pictures leak: 3"]
    assert shown(comparison).endswith("classification is left out: plain has none styles/tuned: pictures leak: 3")


def test_a_run_is_not_compared_with_itself(free_port: int) -> None:
    run = compared().other

    with pytest.raises(EvaluationError, match="'styles/tuned' cannot be compared with itself: name two runs"):
        compare_runs(connect(f"grpc://localhost:{free_port}", "flows/finetune.yml"), run, run)
