"""Some faults on one run whenever tests are run; each on runs of its own by `make chaos`, and with the slow tests."""

import random
from collections.abc import Iterator

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.stage import Stage, prepared

QUICK = ("requests delivered again", "everything killed")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service with data."""
    with prepared(tmp_path_factory.mktemp("chaos")) as up:
        yield up


def test_a_run_comes_to_the_same_end_whatever_happens_to_it(stage: Stage) -> None:
    assert stage.play(QUICK, "all-at-once", random.Random(0)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_comes_to_the_same_end_after_each_fault(stage: Stage, fault: str) -> None:
    if reason := stage.cannot(fault):
        pytest.skip(reason)
    assert stage.play([fault], fault.replace(" ", "-").replace(",", ""), random.Random(fault)) == []
