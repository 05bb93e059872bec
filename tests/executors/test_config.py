"""Every executor's folder is complete and loads as Jina loads it."""

import importlib
from pathlib import Path

import pytest
import yaml
from jina import Executor

from attune.schemas import ENDPOINTS

FLOWS = ("flows/finetune.yml", "flows/search.yml")
NAMES = [part["name"] for flow in FLOWS for part in yaml.safe_load(Path(flow).read_text())["executors"]]


@pytest.mark.parametrize("name", NAMES)
def test_folder_has_its_code_its_configuration_and_its_documentation(name: str) -> None:
    folder = Path("executors") / name
    assert {"__init__.py", "executor.py", "config.yml", "README.md"} <= {path.name for path in folder.iterdir()}
    metas = yaml.safe_load((folder / "config.yml").read_text())["metas"]
    assert metas["name"] == name


@pytest.mark.parametrize("name", ["data_validator", "trainer", "evaluator", "exporter"])
def test_loads_from_its_configuration_and_serves_what_the_table_says(name: str, attune_home: Path) -> None:
    executor = Executor.load_config(f"executors/{name}/config.yml")
    served = set(executor.requests)
    assert {path for path, endpoint in ENDPOINTS.items() if endpoint.executor == name} <= served
    assert "/finetune" in served


@pytest.mark.parametrize("path", ENDPOINTS)
def test_documentation_of_the_executors_names_every_endpoint(path: str) -> None:
    executor = ENDPOINTS[path].executor or {"/finetune": "trainer"}.get(path, "encoder")
    assert f"`{path}`" in (Path("executors") / executor / "README.md").read_text()


@pytest.mark.parametrize("name", ["data_validator", "trainer", "evaluator", "exporter", "encoder", "indexer"])
def test_endpoints_keep_their_document_classes(name: str) -> None:
    """A string annotation anywhere would silently turn them into Jina's legacy document."""
    module = importlib.import_module(f"executors.{name}.executor")
    kind = getattr(module, yaml.safe_load(Path(f"executors/{name}/config.yml").read_text())["jtype"])
    for path, endpoint in ENDPOINTS.items():
        if path in kind.requests_by_class[kind.__name__]:
            function = kind.requests_by_class[kind.__name__][path]
            assert function.request_schema.doc_type is endpoint.takes
            assert function.response_schema.doc_type is endpoint.gives
