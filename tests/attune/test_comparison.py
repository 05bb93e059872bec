import subprocess
import sys
from typing import Any

import pytest

from attune.comparison import compare, comparison, refuse_unlike
from attune.errors import EvaluationError
from attune.schemas import EvaluationResult

ALIKE: dict[str, Any] = {
    "split_fingerprint": "5" * 64,
    "before": {"text_to_image_recall@1": 0.25},
    "fingerprints": {"preprocessing": "9" * 64},
}


def result(recall: float, weights: str, **changes: Any) -> EvaluationResult:
    found = EvaluationResult(**{**ALIKE, **changes}, after={"text_to_image_recall@1": recall})
    found.fingerprints["after"] = weights * 64
    return found


def test_two_runs_stand_side_by_side_with_their_figures_after_training() -> None:
    one, other = result(0.5, "a"), result(0.625, "b")

    section = compare(one, other)

    assert [row.metric for row in section.rows] == [row.metric for row in comparison(one).rows]
    first, second = section.rows[:2]
    assert (first.metric, first.before, first.after, first.difference) == ("text_to_image_recall@1", 0.5, 0.625, "+0.125")
    assert (second.before, second.after, second.difference) == (None, None, "")  # not measured
    assert {row.low for row in section.rows} == {None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"split_fingerprint": "7" * 64},
            "the held-out split is 555555555555 in the first and 777777777777 in the second (give both runs the same "
            "eval_data)",
        ),
        (
            {"fingerprints": {"preprocessing": "0" * 64}},
            "the preprocessing is 999999999999 in the first and 000000000000 in the second (choose models that take "
            "pictures alike)",
        ),
        (
            {"split_fingerprint": ""},
            "of the held-out split, only the first has a fingerprint (evaluate both with this version)",
        ),
        ({"fingerprints": {}}, "of the preprocessing, only the first has a fingerprint (evaluate both with this version)"),
    ],
    ids="split preprocessing no-split no-preprocessing".split(),
)
def test_runs_that_were_not_measured_alike_are_not_compared(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        compare(result(0.5, "a"), result(0.5, "b", **changes))

    assert str(raised.value) == f"These two evaluations must not be compared: {words}"


def test_all_reasons_are_named_at_once() -> None:
    one, other = EvaluationResult(split_fingerprint="5" * 64), EvaluationResult(split_fingerprint="7" * 64)

    with pytest.raises(EvaluationError, match=r"split is 5+ in .*; of the preprocessing, neither has a fingerprint"):
        refuse_unlike(one, other)


def test_runs_are_compared_where_torch_is_not_installed() -> None:
    code = "import sys; sys.modules['torch'] = None; from attune.comparison import compare; print(compare.__name__)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "compare\n"), done.stderr
