"""Services to attack: one that anybody on this machine may use, and one that asks for tokens."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from attune.errors import RunError
from client import AttuneClient
from flows.background import Service, running, small_flow
from tests.conftest import coloured_examples


@pytest.fixture(scope="session")
def open_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of `open_service`."""
    return tmp_path_factory.mktemp("open") / "home"


@pytest.fixture(scope="session")
def open_service(open_home: Path) -> Iterator[Service]:
    """The small Flow without tokens and without limits of rate; the dataset `shapes` and the ended run `real` are there.

    Random requests may hit these by name; the dataset and the run `untouched` they do not know.
    """
    folder = open_home.parent
    with running(small_flow(folder), open_home, folder / "service.log", ATTUNE_REQUESTS_PER_SECOND="0") as service:
        attune = AttuneClient(service.grpc)
        for data, name in (("shapes", "real"), ("untouched", "untouched")):
            attune.push(data, coloured_examples())
            run = attune.fit(model="starter", train_data=data, run_name=name)
            with suppress(RunError):  # it has ended otherwise
                run.cancel()
        yield service
