from pathlib import Path

import pytest

from benchmarks.push_memory import measure


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_push_takes_no_more_memory_for_more_data(protocol: str, tmp_path: Path) -> None:
    """In the client, the gateway and the DataValidator; the larger push has 350 MB more. What is freed swings by 100."""
    found = {}
    for megabytes in (50, 400):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        found[megabytes] = measure(megabytes * 10**6, protocol, folder)

    for name in ("client", "gateway", "data_validator"):
        assert found[400][name] - found[50][name] < 150, found
