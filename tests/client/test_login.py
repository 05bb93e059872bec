"""Tokens that are kept between calls, against a small server that asks for one."""

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attune.errors import AuthenticationError, ServiceUnavailable, SettingsError
from client import AttuneClient, login
from client.__main__ import app
from client.login import login_file, logout

GOOD = "attune_good"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["authorization"] == f"Bearer {GOOD}"
        self.send_response(200 if known else 401)
        self.end_headers()
        refusal = {"error": "AuthenticationError", "message": "This service asks for a token"}
        self.wfile.write(json.dumps({"data": []} if known else refusal).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("ATTUNE_TOKEN", raising=False)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_token_that_the_service_takes_is_kept_for_its_address_alone(url: str) -> None:
    with pytest.raises(AuthenticationError, match="asks for a token"):
        AttuneClient(url).list_runs()
    login(f"{url}/", f" {GOOD}\n")
    assert AttuneClient(url).list_runs() == []
    assert json.loads(login_file().read_text()) == {url: GOOD}
    assert stat.S_IMODE(login_file().stat().st_mode) == 0o600
    with pytest.raises(AuthenticationError):
        AttuneClient(url.replace("127.0.0.1", "localhost")).list_runs()
    logout(url)
    logout(url)
    with pytest.raises(AuthenticationError):
        AttuneClient(url).list_runs()


def test_the_token_that_is_given_counts_before_those_that_are_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    login(url, GOOD)
    with pytest.raises(AuthenticationError):
        AttuneClient(url, token="attune_other").list_runs()
    monkeypatch.setenv("ATTUNE_TOKEN", "attune_other")
    with pytest.raises(AuthenticationError):
        AttuneClient(url).list_runs()
    assert AttuneClient(url, token=GOOD).list_runs() == []


@pytest.mark.parametrize("token", ["attune_bad", "", " "])
def test_a_token_that_is_refused_is_not_kept(url: str, token: str) -> None:
    with pytest.raises(AuthenticationError):
        login(url, token)
    assert not login_file().exists()


def test_without_a_service_nothing_is_kept(free_port: int) -> None:
    with pytest.raises(ServiceUnavailable):
        login(f"http://127.0.0.1:{free_port}", GOOD)
    assert not login_file().exists()


def test_a_file_that_cannot_be_read_is_named(url: str) -> None:
    login_file().parent.mkdir(parents=True)
    login_file().write_text("nonsense")
    with pytest.raises(SettingsError, match=r"tokens.json cannot be read .* Remove it and log in again"):
        AttuneClient(url).list_runs()


def test_the_command_asks_for_the_token_and_does_not_show_it(url: str) -> None:
    shown = CliRunner().invoke(app, ["login", "--url", url], input=f"{GOOD}\n")
    assert shown.exit_code == 0, shown.output
    assert GOOD not in shown.output
    assert AttuneClient(url).list_runs() == []
    assert CliRunner().invoke(app, ["logout", "--url", url]).exit_code == 0
    with pytest.raises(AuthenticationError):
        AttuneClient(url).list_runs()


def test_a_token_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="a token has no place in it") as caught:
        AttuneClient("grpc://attune_secret@localhost:51000")
    assert "attune_secret" not in str(caught.value)
