import time
from pathlib import Path

import pytest

from attune.errors import DataError, ServiceUnavailable, SettingsError
from attune.schemas import TrainingExample
from client import AttuneClient


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_service_that_is_not_running_is_named_at_once(
    scheme: str, free_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    import jina  # noqa: F401  the two seconds of its import are not what is measured

    url = f"{scheme}://localhost:{free_port}"
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=rf"No Attune service answers at {url}\. Start one with `jina flow"):
        AttuneClient(url).list_runs()
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_push_to_a_service_that_is_not_running_is_not_tried_again(free_port: int) -> None:
    client = AttuneClient(f"http://localhost:{free_port}")
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable):
        client.push("emoji", [TrainingExample(image=b"x", captions=["a dot"])], progress=False)
    assert time.monotonic() - start < 2


def test_search_names_the_search_flow(free_port: int) -> None:
    with pytest.raises(ServiceUnavailable, match=r"flows/search\.yml"):
        AttuneClient(search_url=f"http://localhost:{free_port}").search("a smiling cat")


def test_fit_reports_all_bad_settings_before_it_sends_anything(free_port: int) -> None:
    client = AttuneClient(f"grpc://localhost:{free_port}")
    with pytest.raises(SettingsError) as caught:
        client.fit("starter", "emoji", run_name="a/b", epochs=0, los="CLIPLoss", loss="CLIPLos")
    message = str(caught.value)
    for part in (
        "epochs = 0",
        "los = 'CLIPLoss'",
        "did you mean 'loss'",
        "did you mean 'CLIPLoss'",
        "run_name = 'a/b'",
    ):
        assert part in message


def test_fit_checks_settings_before_it_pushes_data(free_port: int, tmp_path: Path) -> None:
    client = AttuneClient(f"grpc://localhost:{free_port}")
    with pytest.raises(SettingsError, match="epochs = 0"):
        client.fit("starter", tmp_path / "not-there.csv", epochs=0)


def test_push_of_a_missing_file_names_it(free_port: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder .*nothing\.csv"):
        AttuneClient(f"grpc://localhost:{free_port}").push("emoji", tmp_path / "nothing.csv")


def test_push_of_nothing_is_refused(free_port: int) -> None:
    with pytest.raises(DataError, match="nothing to push as 'emoji'"):
        AttuneClient(f"grpc://localhost:{free_port}").push("emoji", [])


def test_push_under_an_unusable_name_is_refused(free_port: int) -> None:
    with pytest.raises(SettingsError, match=r"name = '\.\./emoji' is not a valid name"):
        AttuneClient(f"grpc://localhost:{free_port}").push("../emoji", [])


def test_search_by_a_missing_picture_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.png' cannot be read"):
        AttuneClient().search(tmp_path / "cat.png")
