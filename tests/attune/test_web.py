"""Reading from web addresses: against servers that redirect, trickle, lie and never end."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import trustme

from attune.data import web
from attune.data.web import WebError, WebRefused, fetch, is_public

LIMIT = 1000
PRIVATE = (
    "127.0.0.1 127.1.2.3 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 0.1.2.3 255.255.255.255 "
    "224.0.0.1 192.0.2.1 198.18.0.1 240.0.0.1 ::1 :: ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 fe80::1%eth0 fc00::1 "
    "fec0::1 2002:7f00:1:: 64:ff9b::7f00:1 64:ff9b:1::1 2001:0:1::1 2001:db8::1 ff02::1 100::1"
)


class Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers.items())))
        getattr(self, "answer_" + self.path.split("?")[0].strip("/").replace("-", "_"), self.answer_missing)()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_missing(self) -> None:
        self.answer(404, b"")

    def answer_good(self) -> None:
        self.answer(200, b"good")

    def answer_onward(self) -> None:
        self.answer(302, b"", Location="/good")

    def answer_circle(self) -> None:
        self.answer(307, b"", Location="/circle")

    def answer_to_metadata(self) -> None:
        self.answer(302, b"", Location="http://169.254.169.254/latest/meta-data")

    def answer_to_file(self) -> None:
        self.answer(302, b"", Location="file:///etc/passwd")

    def answer_to_name(self) -> None:
        self.answer(302, b"", Location=f"http://localhost:{self.server.server_address[1]}/good")

    def answer_to_other_port(self) -> None:
        self.answer(302, b"", Location="//127.0.0.1:1/good")

    def answer_large(self) -> None:
        self.answer(200, b"x" * (LIMIT + 1))

    def answer_whole(self) -> None:
        self.answer(200, b"x" * LIMIT)

    def answer_cut(self) -> None:
        self.answer(200, b"xx", **{"Content-Length": "500"})

    def answer_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 100_000)
        except OSError:
            return

    def answer_trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def get(port: int, path: str, host: str = "127.0.0.1", hosts: tuple[str, ...] | None = None) -> bytes:
    return fetch(f"http://{host}:{port}/{path}", hosts or (f"127.0.0.1:{port}", f"localhost:{port}"), LIMIT)


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_only_some_can_reach_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("path", ["good", "onward", "whole"])
def test_an_allowed_host_is_read_also_where_it_redirects_to_itself(port: int, path: str) -> None:
    assert get(port, path) == (b"x" * LIMIT if path == "whole" else b"good")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}/good", "may not read from this host"),
        ("http://[::ffff:127.0.0.1]:{port}/good", "may not read from this host"),
        ("http://2130706433:{port}/good", "may not read from this host"),
        ("http://0x7f.1:{port}/good", "may not read from this host"),
        ("http://pictures.example.org.evil.test/x", "may not read from this host"),
        ("http://pictures.example.org:8080/x", "may not read from this host"),
        ("http://pictures.example.org@127.0.0.1:{port}/good", "user name"),
        ("http://127.0.0.1:{port}@pictures.example.org/good", "user name"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://127.0.0.1:{port}/_x", "only http and https"),
        ("http://", "may not read from this host"),
        ("http://[::1", "no web address"),
        ("http://a:99999/", "no web address"),
    ],
)
def test_nobody_else_is_asked(port: int, url: str, reason: str) -> None:
    Handler.asked.clear()
    with pytest.raises(WebRefused, match=reason):
        fetch(url.format(port=port), ("pictures.example.org",), LIMIT)
    assert Handler.asked == []


def test_a_name_that_leads_to_this_machine_is_refused_though_it_is_allowed(port: int) -> None:
    Handler.asked.clear()
    with pytest.raises(WebRefused, match="not on the public internet"):
        get(port, "good", host="localhost")
    assert Handler.asked == []


@pytest.mark.parametrize("path", ["to-metadata", "to-file", "to-name", "to-other-port"])
def test_a_redirect_is_checked_like_the_address_before_it(port: int, path: str) -> None:
    with pytest.raises(WebRefused):
        get(port, path)


def found_at(*addresses: str) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found_at("1.1.1.1", "10.0.0.1"))
    with pytest.raises(WebRefused, match="not on the public internet"):
        fetch("http://pictures.example.org/x", ("pictures.example.org",), LIMIT)


def test_an_answer_that_changes_after_the_check_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [found_at("1.1.1.1"), found_at("127.0.0.1"), found_at("127.0.0.1")]
    connected: list[object] = []

    def connect(address: object, *_: object, **__: object) -> socket.socket:
        connected.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(WebError, match="no network here"):
        fetch("http://pictures.example.org/x", ("pictures.example.org",), LIMIT)
    assert connected == [("1.1.1.1", 80)]
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "the answer is 404"),
        ("circle", "redirects more than 3 times"),
        ("large", "more than 1,000 bytes"),
        ("endless", "more than 1,000 bytes"),
        ("cut", "cut short"),
    ],
)
def test_what_cannot_be_read_says_why(port: int, path: str, reason: str) -> None:
    with pytest.raises(WebError, match=reason):
        get(port, path)


def test_an_answer_that_trickles_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(WebError, match="no answer within 1 s"):
        get(port, "trickle")
    assert time.monotonic() - start < 8


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(WebError, match="no answer within 1 s"):
        get(silent.getsockname()[1], "good", hosts=(f"127.0.0.1:{silent.getsockname()[1]}",))


def test_an_address_cannot_smuggle_headers_and_tells_nothing_of_the_service(port: int) -> None:
    Handler.asked.clear()
    get(port, "good?a b\r\nX-Evil: 1\u00e9")
    path, headers = Handler.asked[-1]
    assert path.startswith("/good?a%20b")
    assert "X-Evil" not in headers
    assert headers.keys() <= {"Host", "User-Agent", "Accept", "Connection", "Accept-Encoding"}


def test_a_certificate_that_nobody_vouches_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = server_side.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url, hosts = f"https://127.0.0.1:{server.server_port}/good", (f"127.0.0.1:{server.server_port}",)
        with pytest.raises(WebError, match="certificate verify failed"):
            fetch(url, hosts, LIMIT)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        assert fetch(url, hosts, LIMIT) == b"good"
        server.shutdown()
