"""Which part may know of which: the arrows of CONTRIBUTING.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "attune": {"attune"},
    "client": {
        "client",
        *(
            f"attune.{name}"
            for name in (
                "characters config data.keys data.read errors figures files kinds models.catalog names schemas"
            ).split()
        ),
        *(f"attune.evaluation.{name}" for name in "comparison kept_ranks two_runs".split()),
    },
    "executors": {"executors", "attune"},
    "flows": {"flows", "attune"},
    "k8s": {"k8s", "attune"},
}
OURS = ("attune", "client", "executors", "flows", "k8s", "examples", "tests", "benchmarks")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    allowed = MAY_IMPORT[package]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in OURS and not any(name == part or name.startswith(f"{part}.") for part in allowed)
    ]
    assert wrong == []


def test_executor_modules_keep_their_annotations_live() -> None:
    """String annotations would silently cost an endpoint its schema."""
    files = list((ROOT / "executors").rglob("*.py"))
    assert files
    assert [path for path in files if "__future__" in imports(path)] == []
