"""What the client's tests share."""

import socket

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # docarray 0.41 is written for pydantic 1 and warns at import and at every conversion.
    config.addinivalue_line("filterwarnings", "ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture
def free_port() -> int:
    """A port nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
