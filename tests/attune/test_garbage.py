"""The garbage collector while modules are imported."""

import gc
import subprocess
import sys

import pytest

from attune.garbage import importing

COLLECTIONS = "import gc, attune.__main__; print(sum(each['collections'] for each in gc.get_stats()), gc.isenabled())"


def test_it_rests_until_all_is_imported_or_nothing_can_be() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        import attune.no_such_module  # noqa: F401
    assert gc.isenabled()


def test_a_stages_process_imports_without_it() -> None:
    """Of the hundreds of times that it would begin anew, there are left those before any module of ours."""
    command = [sys.executable, "-W", "ignore", "-c", COLLECTIONS]
    collections, enabled = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(collections) < 100
    assert enabled == "True"
