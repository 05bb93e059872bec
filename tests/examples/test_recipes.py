"""Every recipe runs through a service, and the document shows what the recipes found."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from client import AttuneClient
from examples.recipes import RECIPES
from examples.recipes.table import RESULTS, markdown, read
from flows.background import running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def attune(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttuneClient]:
    """A client of a service of its own."""
    folder = tmp_path_factory.mktemp("recipes")
    with running(ROOT / "flows" / "finetune.yml", folder / "home", folder / "flow.log") as service:
        yield AttuneClient(service.grpc)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_on_little_data(attune: AttuneClient, name: str) -> None:
    table = import_module(f"examples.recipes.{name}").run(attune, quick=True)

    assert table.rows
    for row in table.rows:
        assert row.low <= row.after - row.before <= row.high
        assert 0 <= row.before <= 1
        assert 0 <= row.after <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_found_is_in_the_document(name: str) -> None:
    table, content = read(name)
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

    assert content["command"] == f"python -m examples.recipes {name}"
    assert markdown(table) in text
    assert content["command"] in text
    assert max(row.after - row.before for row in table.rows) > 0


def test_results_are_those_of_the_recipes() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} == set(RECIPES)
