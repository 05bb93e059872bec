"""What the client's tests share."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import AttuneClient
from flows.background import Service, running, small_flow


def pytest_configure(config: pytest.Config) -> None:
    # docarray 0.41 is written for pydantic 1 and warns at import and at every conversion.
    config.addinivalue_line("filterwarnings", "ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture
def free_port() -> int:
    """A port nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's ATTUNE_HOME."""
    return tmp_path_factory.mktemp("service") / "home"


@pytest.fixture(scope="session")
def service(home: Path) -> Iterator[Service]:
    """The fine-tuning service without the executors that load models."""
    with running(small_flow(home.parent), home, home.parent / "service.log") as started:
        yield started


@pytest.fixture(scope="session", params=["grpc", "http"])
def attune(request: pytest.FixtureRequest, service: Service) -> AttuneClient:
    """The real client, once over each protocol."""
    return AttuneClient(getattr(service, request.param))
