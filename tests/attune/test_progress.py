"""What a run tells of its training while it trains."""

import time
from typing import Any

import pytest
import torch

from attune.training.progress import RECENT, Progress


def steps(seconds: list[float]) -> list[dict[str, Any]]:
    """What is told of steps that take so many seconds, each of them."""
    told: list[dict[str, Any]] = []
    progress = Progress(
        lambda message, **values: told.append({"message": message, **values}), torch.device("cpu"), 100, 1, 0
    )
    for number, taken in enumerate(seconds, start=1):
        progress.seconds["forward"] += taken
        progress.step(number, epoch=1, loss=0.5, learning_rate=1e-4, pairs=8)
    return told


def test_the_first_step_tells_nothing_of_how_long_the_others_take() -> None:
    first, second, third = steps([60, 2, 4])

    assert "seconds_left" not in first
    assert "left" not in first["message"]
    assert second["seconds_left"] == 98 * 2
    assert third["seconds_left"] == 97 * 3
    assert third["message"].endswith("0 pairs/s, 291 s left")


def test_what_is_left_follows_the_pace_of_the_last_steps() -> None:
    last = steps([60, *[9] * 20, *[1] * RECENT])[-1]

    assert last["seconds_left"] == pytest.approx(100 - 41)


def test_time_is_counted_by_kind_of_work_and_once() -> None:
    progress = Progress(lambda *_, **__: None, torch.device("cpu"), 1, 1)

    with progress.clock("validation"), progress.clock("data"):
        time.sleep(0.05)

    assert progress.seconds["data"] >= 0.05
    assert progress.seconds["validation"] < 0.05
