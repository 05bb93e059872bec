import os
import sys
from pathlib import Path

import numpy as np
import pytest

from attune.evaluation.bootstrap import interval
from benchmarks.machine import command_line, describe_machine
from benchmarks.open_clip_trainer import read_marks
from benchmarks.pace import Mark, steady_pace
from benchmarks.processes import watch
from benchmarks.recipe_quality import mean_interval
from benchmarks.synthetic import make_examples


def test_pace_counts_the_middle_of_each_epoch_and_nothing_between_epochs() -> None:
    # Steps 1 and 2 and steps 7 and 8 of 8 are slow or fast; 3 to 6 take 2 s each. Between the epochs lies an hour.
    moments = [0, 50, 100, 102, 104, 106, 106.1, 106.2]
    marks = [Mark(3600 * epoch + moment, epoch, step) for epoch in (0, 1) for step, moment in enumerate(moments, start=1)]

    pace = steady_pace(marks, steps=8, captions=80, edge=2)

    # 3 steps of 10 captions in 6 seconds, twice
    assert (pace.captions, pace.seconds) == (60, 12)
    assert pace.captions_per_second == 5
    assert (pace.start, pace.end) == (100, 3706)


def test_pace_needs_no_mark_at_every_step() -> None:
    assert steady_pace([Mark(0, 1, 1), Mark(8, 1, 5)], steps=5, captions=50, edge=0).captions_per_second == 5


def test_pace_of_too_few_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="too few to leave out 2 at either end"):
        steady_pace([Mark(0, 1, 1), Mark(8, 1, 5)], steps=5, captions=50, edge=2)


def test_marks_are_read_from_open_clips_log() -> None:
    lines = [
        (1.0, "2026-01-01,10:00:00 | INFO | Start epoch 0"),
        (2.0, "2026-01-01,10:00:01 | INFO | Train Epoch: 0 [ 20/120 (17%)] Data (t): 0.088 Batch (t): 1.073, 18.6/s"),
        (5.5, "2026-01-01,10:00:04 | INFO | Train Epoch: 1 [120/120 (100%)] Data (t): 0.003 Batch (t): 0.720, 27.7/s"),
    ]
    assert read_marks(lines, batch_size=20) == [Mark(2.0, 0, 1), Mark(5.5, 1, 6)]


def test_record_holds_no_host_name_and_no_path() -> None:
    record = repr(describe_machine()) + command_line(
        "name", ["--data", "/home/me/photos", "--start=/home/me/model", "--n", "3"]
    )
    assert "--data photos --start=model --n 3" in record
    assert os.uname().nodename not in record.split()
    assert str(Path(__file__).parents[2]) not in record


def test_synthetic_pictures_weigh_as_much_as_real_ones_and_repeat() -> None:
    examples = make_examples(4, seed=1)
    assert all(50_000 < len(example.image) < 110_000 for example in examples)
    assert len({example.image for example in examples}) == 4
    assert all(len(set(example.captions)) == 5 for example in examples)
    again = make_examples(4, seed=1)
    assert [(e.image, e.captions) for e in again] == [(e.image, e.captions) for e in examples]


def test_mean_interval_is_the_evaluators_rounded() -> None:
    rng = np.random.default_rng(0)
    owner, gains = np.repeat(np.arange(60), 3), rng.integers(-1, 2, 180) / 3

    low, high = interval({"gain": gains}, owner)["gain"]

    assert mean_interval(gains, owner) == [round(low, 4), round(high, 4)]
    assert low < gains.mean() < high


def test_watching_counts_the_memory_of_children_and_shared_pages_once(tmp_path: Path) -> None:
    # 200 MiB, forked once: the child shares them, and has 100 MiB of its own.
    code = (
        "import os, time\n"
        "own = b'x' * (200 << 20)\n"
        "if not os.fork(): more = b'y' * (100 << 20); time.sleep(3); os._exit(0)\n"
        "print('forked', flush=True); os.wait()"
    )
    found = watch([sys.executable, "-c", code], tmp_path, "cpu")
    assert [text for _, text in found.lines] == ["forked"]
    assert 300 < found.peak_memory_mib < 400
    assert found.gpu_use(0, 1e12) is None


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno luck"):
        watch([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], tmp_path, "cpu")
