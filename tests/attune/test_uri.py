"""Pictures that the service reads by itself: from where it is allowed to, and from nowhere else."""

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from attune.data import uri
from attune.data.uri import UNREAD, UriError, read_uri, read_uris
from attune.data.validate import validate_examples
from attune.schemas import MAX_IMAGE_BYTES, TrainingExample
from attune.service.settings import service_settings
from tests.conftest import picture

RED = picture("red")


class Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path == "/red.png" else 404)
        self.end_headers()
        self.wfile.write(RED)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "red.png").write_bytes(RED)
    (tmp_path / "secret.png").write_bytes(RED)
    return folder


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function: `allow(roots=..., hosts=...)` sets what the operator would."""

    def set_both(roots: Path | str = "", hosts: str = "") -> None:
        monkeypatch.setenv("ATTUNE_URI_ROOTS", str(roots))
        monkeypatch.setenv("ATTUNE_URI_HOSTS", hosts)
        service_settings.cache_clear()

    set_both()
    yield set_both
    service_settings.cache_clear()


def reason_of(address: str) -> str:
    with pytest.raises(UriError) as caught:
        read_uri(address)
    return caught.value.reason


def test_by_default_nothing_is_read(allow: Callable[..., None], pictures: Path, host: str) -> None:
    Handler.asked.clear()
    for address in (str(pictures / "red.png"), f"http://{host}/red.png", f"file://{pictures}/red.png", "/etc/passwd"):
        assert reason_of(address) == "uri_refused"
    assert Handler.asked == []


def test_what_is_allowed_is_read(allow: Callable[..., None], pictures: Path, host: str) -> None:
    allow(pictures, host)
    assert read_uri(str(pictures / "red.png")) == RED
    assert read_uri(f"http://{host}/red.png") == RED


@pytest.mark.parametrize(
    "name", ["../secret.png", "out/secret.png", "link.png", "red.png/../../secret.png", "circle", "x\x00y", "\ud800"]
)
def test_no_name_leads_out_of_the_folder_that_is_allowed(allow: Callable[..., None], pictures: Path, name: str) -> None:
    (pictures / "out").symlink_to(pictures.parent)
    (pictures / "link.png").symlink_to(pictures.parent / "secret.png")
    (pictures / "circle").symlink_to(pictures / "circle")
    allow(pictures)
    assert reason_of(f"{pictures}/{name}") == "uri_refused"


def test_a_relative_path_and_another_scheme_are_refused(
    allow: Callable[..., None], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(pictures)
    monkeypatch.chdir(pictures)
    for address in ("red.png", "./red.png", f"file://{pictures}/red.png", "ftp://127.0.0.1/x", "data:image/png;base64,AA=="):
        assert reason_of(address) == "uri_refused"


def test_a_link_that_is_exchanged_after_the_check_is_seen(
    allow: Callable[..., None], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "link.png").symlink_to(pictures / "red.png")
    allow(pictures)
    assert read_uri(str(pictures / "link.png")) == RED
    opened = os.open

    def exchange_then_open(path: Path, *arguments: int) -> int:
        (pictures / "link.png").unlink()
        (pictures / "link.png").symlink_to(pictures.parent / "secret.png")
        return opened(path, *arguments)

    monkeypatch.setattr(uri.os, "open", exchange_then_open)
    assert reason_of(str(pictures / "link.png")) == "uri_refused"


def test_what_is_no_file_or_too_large_is_not_waited_for(allow: Callable[..., None], pictures: Path) -> None:
    os.mkfifo(pictures / "fifo")
    with (pictures / "large.png").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)  # takes no room on the disk
    allow(f"{pictures}:/dev")
    for name in (
        pictures / "fifo",
        pictures,
        pictures / "large.png",
        pictures / "missing.png",
        pictures / ("a" * 300),
        "/dev/zero",
    ):
        assert reason_of(str(name)) == "unreadable_uri"


def test_answers_are_in_the_order_of_the_questions(allow: Callable[..., None], pictures: Path) -> None:
    allow(pictures)
    found = read_uris([str(pictures / ("red.png" if number % 3 else "missing.png")) for number in range(20)])
    assert [isinstance(one, bytes) for one in found] == [number % 3 > 0 for number in range(20)]


def test_a_batch_does_not_grow_without_bound(
    allow: Callable[..., None], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(pictures)
    monkeypatch.setattr(uri, "MAX_BATCH_BYTES", 10 * len(RED))
    found = read_uris([str(pictures / "red.png")] * 40)
    assert 10 <= sum(isinstance(one, bytes) for one in found) < 10 + uri.AT_ONCE + 1
    assert "Send fewer examples" in str(found[-1])


def test_a_refusal_is_a_problem_of_its_example_and_shows_nothing_of_what_is_there(
    allow: Callable[..., None], pictures: Path, host: str
) -> None:
    (pictures / "passwords.txt").write_text("attune:hunter2")
    allow(pictures)
    asked = [str(pictures / "red.png"), str(pictures / "passwords.txt"), "/etc/passwd", f"http://{host}/red.png"]
    examples = [TrainingExample(uri=address, captions=["red"], source=str(number)) for number, address in enumerate(asked)]
    good, problems = validate_examples(examples)
    assert [example.source for example in good] == ["0"]
    assert [problem.reason for problem in problems] == ["unreadable_image", "uri_refused", "uri_refused"]
    assert "hunter2" not in str(problems)
    assert {"uri_refused", "unreadable_uri"} == UNREAD
