"""One running fine-tuning service for all tests of this folder, and data on disk as users have it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attune.schemas import TrainingExample
from client import AttuneClient
from flows.background import Service, running


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's ATTUNE_HOME."""
    return tmp_path_factory.mktemp("service") / "home"


@pytest.fixture(scope="session")
def service(home: Path) -> Iterator[Service]:
    """`flows/finetune.yml`, running."""
    with running(Path("flows/finetune.yml"), home, home.parent / "service.log") as started:
        yield started


@pytest.fixture(scope="session", params=["grpc", "http"])
def attune(request: pytest.FixtureRequest, service: Service) -> AttuneClient:
    """The real client, once over each protocol."""
    return AttuneClient(getattr(service, request.param))


@pytest.fixture(scope="session")
def flickr_folder(tmp_path_factory: pytest.TempPathFactory, make_examples: Callable[..., list[TrainingExample]]) -> Path:
    """A folder in Kaggle's Flickr8k layout: `Images/` and `captions.txt` with two captions a picture."""
    folder = tmp_path_factory.mktemp("flickr")
    (folder / "Images").mkdir()
    lines = ["image,caption"]
    for number, example in enumerate(make_examples(60)):
        (folder / "Images" / f"{number}.png").write_bytes(example.image)
        lines += [f"{number}.png,{caption} ." for caption in example.captions]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return folder
