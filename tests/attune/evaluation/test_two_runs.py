"""Two evaluated runs side by side."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from attune.errors import EvaluationError
from attune.evaluation.comparison import ZERO_SHOT, comparison
from attune.evaluation.kept_ranks import Ranks, pack, unpack
from attune.evaluation.two_runs import compare, notes, refuse_unlike
from attune.schemas import EvaluationResult, FinetuningRun

SPLIT, OTHER = "5" * 64, "7" * 64
PICTURES = np.repeat(np.arange(40), 2)


def run(
    name: str,
    recall: float,
    split: str = SPLIT,
    preprocessing: str = "9" * 64,
    classes: str | None = "c" * 64,
    prompts: str = "openai",
    **more: Any,
) -> FinetuningRun:
    result = EvaluationResult(split_fingerprint=split, before={"text_to_image_recall@1": 0.25}, **more)
    result.after = {"text_to_image_recall@1": recall, "zero_shot_acc1": 0.5}
    result.fingerprints = {"preprocessing": preprocessing, "after": name * 64, **({"classes": classes} if classes else {})}
    return FinetuningRun(name=name, settings={"train_data": "emoji", "prompt_templates": prompts}, evaluation=result)


def ranks(found: int, labelled: int = 0) -> Ranks:
    """Of two captions of each of 40 pictures: the first `found` captions have the first rank, the others the third.

    The first `labelled` pictures have a label, and the right class first.
    """
    rank = np.where(np.arange(80) < found, 1, 3)
    of_classes = {"zero_shot_after": np.ones(labelled), "zero_shot_picture": np.arange(labelled)} if labelled else {}
    return unpack(pack({"text_to_image_after": rank, "text_to_image_picture": PICTURES, **of_classes}))


def test_each_run_has_a_column_with_the_figure_of_its_own_model() -> None:
    one, other = run("a", 0.5), run("b", 0.625)

    section = compare(one, other)

    assert [row.metric for row in section.rows] == [row.metric for row in comparison(one.evaluation).rows]
    first, second = section.rows[:2]
    assert (first.metric, first.before, first.after, first.difference) == ("text_to_image_recall@1", 0.5, 0.625, "+0.125")
    assert (second.before, second.after, second.difference) == (None, None, "")  # not measured
    assert {row.low for row in section.rows} == {None}
    assert "evaluate it again" in section.definition


def test_with_the_ranks_of_both_the_difference_has_an_interval_and_a_p_value() -> None:
    section = compare(run("a", 0.5), run("b", 0.75), (ranks(40), ranks(60)))

    row = section.rows[0]
    assert (row.before, row.after, row.verdict) == (0.5, 0.75, "better")
    assert row.low is not None
    assert row.high is not None
    assert 0 < row.low < 0.25 < row.high < 0.5
    assert row.p_value is not None
    assert row.p_value < 0.01
    assert section.rows[1].p_value == 1.0  # recall@5 is the same of both


def test_classes_are_compared_if_they_and_the_prompts_are_the_same() -> None:
    one, other = run("a", 0.5), run("b", 0.75)

    rows = {row.metric: row for row in compare(one, other, (ranks(40, labelled=30), ranks(60, labelled=30))).rows}

    assert rows["zero_shot_acc1"].low is not None
    assert notes(one, other) == []


def without_classes(name: str) -> FinetuningRun:
    found = run(name, 0.5, classes=None)
    del found.evaluation.after["zero_shot_acc1"]
    return found


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (
            run("a", 0.5),
            run("b", 0.5, classes="d" * 64, prompts="simple"),
            "other prompts ('openai' in a, 'simple' in b)",
        ),
        (run("a", 0.5), run("b", 0.5, classes="d" * 64), "other labels or classes, or prompts that have changed"),
        (run("a", 0.5), without_classes("b"), "b has none"),
        (without_classes("a"), run("b", 0.5), "a has none"),
        (
            run("a", 0.5, classes=None),
            run("b", 0.5, classes=None),
            "the classes of a and b are not known (evaluate again with this version)",
        ),
    ],
    ids="prompts labels other-none one-none unknown".split(),
)
def test_where_classification_is_left_out_a_note_says_why_and_retrieval_is_there(
    one: FinetuningRun, other: FinetuningRun, why: str
) -> None:
    rows = {row.metric: row for row in compare(one, other, (ranks(40, labelled=30), ranks(60, labelled=20))).rows}

    assert not rows.keys() & set(ZERO_SHOT)
    assert rows["text_to_image_recall@1"].low is not None
    assert notes(one, other) == [f"classification is left out: {why}"]


def test_nothing_is_said_of_classes_where_neither_run_has_any() -> None:
    assert notes(without_classes("a"), without_classes("b")) == []


def test_each_runs_warnings_are_noted_by_its_name() -> None:
    one, other = run("a", 0.5, warnings=["3 leak", "few pictures"]), run("b", 0.5, warnings=["few pictures", "5 leak"])

    assert notes(one, other) == ["a: 3 leak", "a and b: few pictures", "b: 5 leak"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            run("b", 0.5, split=OTHER),
            "the held-out part is a part of 'emoji' (555555555555) in a and a part of 'emoji' (777777777777) in b (give "
            "both the same eval_data)",
        ),
        (
            run("b", 0.5, preprocessing="0" * 64),
            "the preprocessing is 999999999999 in a and 000000000000 in b (choose models that take pictures alike)",
        ),
        (run("b", 0.5, split=""), "the held-out part of b is not known (evaluate again with this version)"),
        (run("b", 0.5, preprocessing=""), "the preprocessing of b is not known (evaluate again with this version)"),
    ],
    ids="split preprocessing no-split no-preprocessing".split(),
)
def test_runs_that_were_not_measured_alike_are_not_compared(other: FinetuningRun, words: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        compare(run("a", 0.5), other)

    assert str(raised.value) == f"These two evaluations must not be compared: {words}"


def test_all_reasons_are_named_at_once() -> None:
    one, other = run("a", 0.5, preprocessing=""), run("b", 0.5, split=OTHER, preprocessing="")

    with pytest.raises(EvaluationError, match=r"part is .*; the preprocessing of a and b is not known"):
        refuse_unlike(one, other)


def test_runs_are_compared_where_torch_is_not_installed() -> None:
    code = "import sys; sys.modules['torch'] = None; from attune.evaluation.two_runs import compare; print(compare.__name__)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "compare\n"), done.stderr
