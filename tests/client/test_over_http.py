"""The HTTP contract, against a small server that keeps it."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from attune.errors import AttuneError, RunError, RunNotFound, ServiceUnavailable
from attune.schemas import DatasetReport, Problem, RunQuery, TrainingExample
from client.files import download_file, read_file
from client.transport import Transport, call_one, connect

CONTENT = b"\x00\xff" * 5  # served two bytes at a time


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = getattr(self, "answer_" + self.path.strip("/").replace("/", "_"))(body)
        self.send_response(status)
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

    def answer_runs_events(self, _body: dict) -> tuple[int, object]:
        return 200, {"data": []}

    def answer_runs_file(self, body: dict) -> tuple[int, object]:
        wanted = body["data"][0]
        data = CONTENT[wanted["offset"] :][:2]
        answer = {**wanted, "data": base64.b64encode(data).decode(), "total": len(CONTENT), "sha256": "0" * 64}
        return 200, {"data": [answer]}


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


def test_no_document_where_one_is_due_is_an_error(transport: Transport) -> None:
    with pytest.raises(ServiceUnavailable, match="with 0 documents instead of 1"):
        call_one(transport, "/runs/events", [])


def test_file_is_put_together_from_its_pieces(transport: Transport) -> None:
    assert read_file(transport, "my-run", "report/examples.json") == CONTENT


def test_damaged_file_is_refused_and_not_left_behind(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="arrived with SHA-256"):
        download_file(transport, "my-run", "artifact/model.safetensors", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
