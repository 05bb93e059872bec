"""Runs as models: which run's name is one, and what is said of the others."""

from pathlib import Path

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


def test_where_there_is_no_such_model_the_runs_whose_names_are_nearest_are_told() -> None:
    for name in ("alder", "other/shoes-2", "birch", "elm", "oak", "pine", "shoes-1"):
        experiment, _, plain = name.rpartition("/")
        create(plain, "FINISHED", experiment=experiment or "default").artifact.mkdir()
    with pytest.raises(ModelError, match=r"; a finished run: shoes-1, other/shoes-2, \w+, \w+, \w+ and 2 more$"):
        locate("Shoes-")


@pytest.mark.parametrize("name", ["/nonexistent/x", "ViT-B-32#opanai", "timm/resnet50#nonsense", "{folder}"])
def test_of_what_cannot_be_a_runs_name_no_runs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    create("shoes", "FINISHED").artifact.mkdir()
    (tmp_path / "shoe").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refused:
        locate(name.format(folder="shoe"))
    assert "finished run" not in str(refused.value)
