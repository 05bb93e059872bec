"""What depends on what: the domain knows nothing of Jina, and its light parts load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attune

FILES = sorted(Path(attune.__file__).parent.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def test_all_files_of_the_domain_are_looked_at() -> None:
    assert len(FILES) >= 25
    assert {"config.py", "train.py", "store.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FILES[0].parent)))
def test_the_domain_does_not_know_of_jina_nor_of_those_who_use_it(path: Path) -> None:
    assert not imported(path) & {"jina", "hubble", "executors", "client", "flows"}


def test_settings_and_errors_load_neither_torch_nor_jina() -> None:
    code = "import sys, attune.config, attune.errors; print(*sorted({'torch', 'open_clip', 'jina'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
