"""Thousands of bad requests against one service: it stays up, and says of each what is wrong with it."""

import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import requests
from hypothesis import HealthCheck, given, settings

from attune.schemas import ENDPOINTS
from client import AttuneClient
from flows.background import Service
from tests.processes import descendants
from tests.security.bad_requests import bodies, check_grpc, check_http, grpc_requests, post, request_of

FEW, MANY = 250, 5000
SECONDS = 300
"""For an answer: on a busy machine it takes long."""
GROWTH = 400 * 10**6
"""Bytes that all processes together may take more than when they were warm."""


def thorough(count: int) -> Callable[..., Callable[..., None]]:
    """So many examples, the same every time; what is found is not made smaller, since a service keeps what it was told."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def memory(pids: list[int]) -> int:
    """Bytes that the processes have to themselves and share, counted once each."""
    found = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found += 1024 * int(re.search(r"Pss:\s+(\d+)", text)[1])
    return found


@pytest.fixture(scope="module", autouse=True)
def _survives(open_service: Service) -> Iterator[None]:
    """Whatever was sent: no process was lost, none has grown, and what was there is there."""
    attune = AttuneClient(open_service.grpc)
    before = descendants(open_service.process.pid)
    for path in sorted(ENDPOINTS):  # once each, so that everything is imported
        post(open_service.http + path, {"data": []})
    warm = memory(before)
    yield
    assert [pid for pid in descendants(open_service.process.pid) if pid in before] == before
    grown = memory(before) - warm
    print(f"grown by {grown / 1e6:.0f} MB from {warm / 1e6:.0f} MB")
    assert grown < GROWTH
    assert attune.get_run("untouched").name == "untouched"
    assert {report.name: report.images for report in attune.list_datasets()}["untouched"] == 40


@pytest.fixture(scope="module")
def channel(open_service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{open_service.port}") as opened:
        yield opened


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_documents_and_parameters_over_http(open_service: Service, count: int) -> None:
    @thorough(count)
    @given(bodies)
    def ask(body: tuple[str, object]) -> None:
        check_http(post(open_service.http + body[0], body[1]))

    ask()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_documents_and_parameters_over_grpc(channel: grpc.Channel, count: int) -> None:
    @thorough(count)
    @given(grpc_requests)
    def ask(request: object) -> None:
        check_grpc(channel, request)

    ask()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_bytes_in_the_place_of_a_grpc_message(channel: grpc.Channel, count: int) -> None:
    rng = random.Random(0)
    whole = request_of("/runs/get", [], {"name": "real"}).SerializeToString()
    for message in (b"", b"\x00", b"\xff" * 1000, b"\x80\x05cposix\nsystem\n", *(damaged(whole, rng) for _ in range(count))):
        check_grpc(channel, message)


REQUESTS = [
    b'POST /runs/get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26\r\n\r\n{"data":[{"name":"real"}]}',
    b"GET /runs/real/events?after=0 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\nConnection: close\r\n\r\n",
    b"POST /runs/list HTTP/1.1\r\nHost: localhost\r\n"
    b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"data":[\r\n2\r\n]}\r\n0\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
]
ODD = [
    b"",
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a greeting of TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"GET / HTTP/1.1\r\nHost: [localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
]


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them cut out, doubled, or changed."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del data[at : at + rng.randint(1, 9)]
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        elif kind == 2:
            data[at:at] = data[at : at + 20]
        elif data:
            data[at % len(data)] = rng.randrange(256)
    return bytes(data)


def said_to(port: int, message: bytes, wait: float = 0.05) -> bytes:
    """What a server answers to the bytes, and then nothing more, within moments."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.settimeout(wait)
        found = b""
        try:
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                found += piece
        except OSError:  # it hung up, or waits for the rest
            pass
        return found


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_bytes_on_the_http_port(open_service: Service, count: int) -> None:
    rng = random.Random(0)
    messages = [*ODD, *(damaged(rng.choice(REQUESTS), rng) for _ in range(count))]
    for message in messages:
        answer = said_to(open_service.port + 1, message)
        assert not answer.startswith(b"HTTP/1.1 5"), (message[:500], answer[:500])
    assert requests.get(open_service.http, timeout=SECONDS).ok


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_bytes_on_the_grpc_port(open_service: Service, channel: grpc.Channel, count: int) -> None:
    rng = random.Random(0)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    for number in range(count):
        frame = bytes([0, rng.randrange(4), rng.randrange(256), rng.randrange(10), rng.randrange(256)]) + rng.randbytes(60)
        said_to(open_service.port, rng.choice([b"", preface]) + (frame if number % 2 else rng.randbytes(40)))
    check_grpc(channel, request_of("/runs/list", [], {}))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/runs/get", b'{"data": [{"name": "\\ud800"}]}'),
        ("/runs/get", b'{"data": [{"na\\ud800me": {"\\udfff": 1}}]}'),
        ("/push", b'{"data": [], "parameters": {"na\\ud800me": "\\ud800"}}'),
        ("/runs/events", b'{"data": []}'),
        ("/runs/events", b'{"data": [{"name": "real", "after": 99999999999999999999999}]}'),
        ("/runs/events", b'{"data": [{"name": "real", "after": -1}]}'),
        ("/runs/events", b'{"data": [{"name": "real", "limit": 1e400}]}'),
        ("/runs/file", b'{"data": [{"run": "real", "path": "run.json", "offset": 9223372036854775807}]}'),
        ("/runs/file", b'{"data": [{"run": "real", "path": "../../../etc/passwd"}]}'),
        ("/runs/file", b'{"data": [{"run": "real", "path": "/etc/passwd"}]}'),
        ("/runs/file", b'{"data": [{"run": "../..", "path": "etc/passwd"}]}'),
        ("/runs/submit", b'{"data": [{"name": "x", "settings": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}]}"),
        ("/runs/submit", b'{"data": [{"name": "../x", "experiment": "..", "settings": {"model": "starter"}}]}'),
        ("/push", b"[" * 100_000),
        ("/push", b'{"data": [' + b"{}," * 20_000 + b"{}]}"),
        ("/push", b"\xff\xfe"),
        ("/push", b'{"data": [{"image": "not base64!"}], "parameters": {"name": "x", "upload": "x"}}'),
        ("/push", b'{"data": [{}], "parameters": {"name": "../x", "upload": "../../x"}}'),
        ("/nowhere", b"{}"),
        ("/datasets/commit", b'{"data": [{"name": "x", "upload": "x", "batches": ["../../../etc/passwd"]}]}'),
        ("/datasets/commit", b'{"data": [], "parameters": {"name": NaN}}'),
    ],
)
def test_a_request_that_was_once_a_fault_is_answered(open_service: Service, path: str, body: bytes) -> None:
    response = post(open_service.http + path, body)
    check_http(response)
    assert "root:" not in response.text


@pytest.mark.parametrize("query", ["after=-1", "after=99999999999999999999999", "after=x", "after=0&after=1"])
def test_a_stream_of_events_from_an_impossible_place(open_service: Service, query: str) -> None:
    with requests.get(f"{open_service.http}/runs/untouched/events?{query}", timeout=SECONDS, stream=True) as response:
        assert response.status_code in (200, 422)
        assert response.ok or response.json()["error"] == "DataError"


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fetc", "%00", "%ed%a0%80", "a%0d%0aX-Evil:1", "real%2f..%2freal", "x" * 5000],
)
def test_a_stream_of_events_of_a_run_that_cannot_be(open_service: Service, name: str) -> None:
    response = requests.get(f"{open_service.http}/runs/{name}/events", timeout=SECONDS)
    assert response.status_code == 404, response.text
    assert "X-Evil" not in response.headers


def test_nothing_was_written_outside_of_the_home(open_service: Service, open_home: Path) -> None:
    known = {"datasets", "runs", "index", "huggingface", ".service-token", "..service-token.lock", ".service-token.lock"}
    assert {path.name for path in open_home.iterdir()} <= known
    assert {path.name for path in open_home.parent.iterdir()} == {"home", "service.log", "small.yml"}
