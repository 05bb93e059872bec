"""Runs as models: which run's name is one, and what is said of the others."""

import pytest

from attune.errors import ModelError
from attune.runs.models import locate
from attune.schemas import STATES, FinetuningRun
from attune.validation import validate
from tests.attune.runs.made import create

pytestmark = pytest.mark.usefixtures("attune_home")


def make(state: str, **settings: str) -> None:
    create("mine", state, settings={"model": "starter", **settings})


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("FINISHED", "FAILED", "CANCELLED")])
def test_a_run_that_is_not_finished_is_no_model_yet(state: str) -> None:
    make(state, train_data="shapes")
    with pytest.raises(ModelError, match=f"'mine' is a run, and no model yet: it is {state}. .* once it is FINISHED"):
        validate(FinetuningRun(settings={"model": "mine", "eval_data": "shapes"}))


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_ended_without_a_model_is_none(state: str) -> None:
    make(state, train_data="shapes")
    with pytest.raises(ModelError, match=f"'mine' is a run, and no model: it is {state}. Resume it, or choose another"):
        locate("mine")


def test_a_run_that_only_measured_names_what_it_measured() -> None:
    make("FINISHED", eval_data="shapes")
    with pytest.raises(ModelError, match="'mine' is a run, and no model: it trained nothing. Name what .* 'starter'"):
        locate("mine")
