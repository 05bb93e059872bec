"""The HTTP contract, against a small server that keeps it."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from attune.errors import (
    AttuneError,
    AuthenticationError,
    LimitExceeded,
    RunError,
    RunNotFound,
    ServiceUnavailable,
)
from attune.schemas import DatasetReport, Problem, RunQuery, TrainingExample
from client.files import download_file, read_file
from client.transport import Transport, call_one, connect

CONTENT = b"\x00\xff" * 5  # served two bytes at a time


class Handler(BaseHTTPRequestHandler):
    authorizations: ClassVar[list[str | None]] = []
    refusals = 0  # of the next requests

    def do_POST(self) -> None:
        self.authorizations.append(self.headers["authorization"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = getattr(self, "answer_" + self.path.strip("/").replace("/", "_"))(body)
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", "1")
        if status == 302:
            self.send_header("location", "/elsewhere")
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def answer_push(self, body: dict) -> tuple[int, object]:
        sizes = [len(base64.b64decode(document["image"], validate=True)) for document in body["data"]]
        report = {"name": body["parameters"]["name"], "images": sum(sizes), "problems": [{"advice": "Push it again"}]}
        return 200, {"data": [report]}

    def answer_runs_get(self, body: dict) -> tuple[int, object]:
        return 404, {"error": "RunNotFound", "message": f"There is no run named {body['data'][0]['name']!r}"}

    def answer_runs_list(self, _body: dict) -> tuple[int, object]:
        return 502, b"<html>Bad gateway</html>"

    def answer_datasets_get(self, _body: dict) -> tuple[int, object]:
        if Handler.refusals:
            Handler.refusals -= 1
            return 429, {"error": "LimitExceeded", "message": "Wait, and ask again"}
        return 200, {"data": [{"name": "emoji"}]}

    def answer_datasets_commit(self, _body: dict) -> tuple[int, object]:
        return 413, {"error": "LimitExceeded", "message": "The request is too large"}

    def answer_search(self, _body: dict) -> tuple[int, object]:
        return 302, b""

    def answer_elsewhere(self, _body: dict) -> tuple[int, object]:
        return 200, {"data": []}

    def answer_runs_events(self, _body: dict) -> tuple[int, object]:
        return 200, {"data": []}

    def answer_runs_file(self, body: dict) -> tuple[int, object]:
        wanted = body["data"][0]
        data = CONTENT[wanted["offset"] :][:2]
        answer = {**wanted, "data": base64.b64encode(data).decode(), "total": len(CONTENT), "sha256": "0" * 64}
        return 200, {"data": [answer]}


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ATTUNE_TOKEN", raising=False)


@pytest.fixture(scope="module")
def transport() -> Iterator[Transport]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield connect(f"http://127.0.0.1:{server.server_port}", "flows/finetune.yml")
        server.shutdown()


def test_documents_and_their_bytes_arrive(transport: Transport) -> None:
    examples = [TrainingExample(image=b"\xff\x00\xfe"), TrainingExample(image=b"")]
    report = call_one(transport, "/push", examples, {"name": "emoji"})
    assert isinstance(report, DatasetReport)
    assert (report.name, report.images) == ("emoji", 3)
    assert isinstance(report.problems[0], Problem)
    assert report.problems[0].advice == "Push it again"


def test_error_keeps_its_class_and_message(transport: Transport) -> None:
    with pytest.raises(RunNotFound, match="There is no run named ''"):
        transport.call("/runs/get", [RunQuery()])


def test_answer_of_something_else_is_shown(transport: Transport) -> None:
    with pytest.raises(AttuneError, match=r"answered 502 '<html>Bad gateway</html>'"):
        transport.call("/runs/list", [])


def test_token_is_sent_and_nothing_of_a_netrc(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    url = transport.address.url
    connect(url, "flows/finetune.yml", "attune_x").call("/runs/events", [])
    assert Handler.authorizations[-1] == "Bearer attune_x"
    monkeypatch.setenv("ATTUNE_TOKEN", "attune_y ")
    connect(url, "flows/finetune.yml").call("/runs/events", [])
    assert Handler.authorizations[-1] == "Bearer attune_y"
    monkeypatch.delenv("ATTUNE_TOKEN")
    connect(url, "flows/finetune.yml").call("/runs/events", [])
    assert Handler.authorizations[-1] is None


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_token_does_not_leave_this_machine_in_plain_text(scheme: str) -> None:
    transport = connect(f"{scheme}://192.0.2.1:5", "flows/finetune.yml", "attune_secret")
    with pytest.raises(AuthenticationError, match="was not sent: .* not encrypted") as caught:
        transport.call("/runs/list", [])
    assert "attune_secret" not in str(caught.value) + repr(transport.address)


def test_token_that_is_none_is_not_sent(transport: Transport) -> None:
    with pytest.raises(AuthenticationError, match="characters that no token has"):
        connect(transport.address.url, "flows/finetune.yml", "attune\nx: y").call("/runs/list", [])


def test_an_answer_elsewhere_is_not_followed(transport: Transport) -> None:
    seen = len(Handler.authorizations)
    with pytest.raises(AttuneError, match="answered 302"):
        transport.call("/search", [])
    assert len(Handler.authorizations) == seen + 1


def test_a_service_that_asks_to_wait_is_asked_again(transport: Transport) -> None:
    Handler.refusals = 2
    assert call_one(transport, "/datasets/get", []).name == "emoji"
    assert Handler.refusals == 0


def test_a_request_that_is_too_large_is_not_sent_again(transport: Transport) -> None:
    seen = len(Handler.authorizations)
    with pytest.raises(LimitExceeded, match="too large"):
        transport.call("/datasets/commit", [])
    assert len(Handler.authorizations) == seen + 1


def test_no_document_where_one_is_due_is_an_error(transport: Transport) -> None:
    with pytest.raises(ServiceUnavailable, match="with 0 documents instead of 1"):
        call_one(transport, "/runs/events", [])


def test_file_is_put_together_from_its_pieces(transport: Transport) -> None:
    assert read_file(transport, "my-run", "report/examples.json") == CONTENT


def test_damaged_file_is_refused_and_not_left_behind(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="arrived with SHA-256"):
        download_file(transport, "my-run", "artifact/model.safetensors", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
