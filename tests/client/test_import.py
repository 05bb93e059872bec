import subprocess
import sys

HEAVY = ("torch", "jina", "docarray", "pyarrow", "numpy")


def loaded_by(statement: str) -> str:
    code = f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_of_client_loads_nothing_heavy() -> None:
    assert loaded_by("import client") == "[]"


def test_import_of_command_line_loads_nothing_heavy() -> None:
    assert loaded_by("import client.__main__") == "[]"
