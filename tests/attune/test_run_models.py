"""Runs as models: which run's name is one, and what is said of the others."""

import pytest

from attune.errors import ModelError
from attune.life_cycle import cancel, fail
from attune.run_models import locate
from attune.runs import RunFolder
from attune.schemas import STATES, FinetuningRun
from attune.validation import validate

pytestmark = pytest.mark.usefixtures("attune_home")


def create(state: str, **settings: object) -> RunFolder:
    folder = RunFolder.create(FinetuningRun(name="mine", settings={"model": "starter", **settings}))
    if state == "FAILED":
        fail(folder, "no data")
    elif state == "CANCELLED":
        cancel(folder)
    else:
        folder.set_state(state)
    return folder


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("FINISHED", "FAILED", "CANCELLED")])
def test_a_run_that_is_not_finished_is_no_model_yet(state: str) -> None:
    create(state, train_data="shapes")
    with pytest.raises(ModelError, match=f"'mine' is a run, and no model yet: it is {state}. .* once it is FINISHED"):
        validate(FinetuningRun(settings={"model": "mine", "eval_data": "shapes"}))


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_ended_without_a_model_is_none(state: str) -> None:
    create(state, train_data="shapes")
    with pytest.raises(ModelError, match=f"'mine' is a run, and no model: it is {state}. Resume it, or choose another"):
        locate("mine")


def test_a_run_that_only_measured_names_what_it_measured() -> None:
    create("FINISHED", eval_data="shapes")
    with pytest.raises(ModelError, match="'mine' is a run, and no model: it trained nothing. Name what .* 'starter'"):
        locate("mine")
