"""A service with tokens and TLS, over both protocols: who gets in, for what, what errors look like, what is written down."""

import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError

import grpc
import pytest
import requests
import trustme
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jina.proto import jina_pb2

from attune import errors
from attune.errors import (
    AttuneError,
    AuthenticationError,
    AuthorizationError,
    DataError,
    LimitExceeded,
    RunNotFound,
    ServiceUnavailable,
)
from attune.schemas import END_STATES, RunQuery, SearchDocument, TrainingExample
from attune.service.settings import service_settings
from attune.service.tokens import add_token, remove_token
from client import AttuneClient
from client.transport import Transport, connect
from executors.gateway.connection import HEAD_SECONDS
from executors.gateway.raised import error_of
from flows.background import Service, running, small_flow
from tests.conftest import coloured_examples, picture
from tests.processes import wait_until
from tests.raising import DETAIL
from tests.security.bad_requests import request_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AttuneError)]
LIMIT = 2_000_000


class Guarded:
    """A service, the tokens for it, and who vouches for its certificate."""

    def __init__(self, service: Service, home: Path, tokens: dict[str, str], authority: Path) -> None:
        self.service, self.home, self.tokens, self.authority = service, home, tokens, authority
        self.open: list[requests.Response] = []
        self.addresses = {"grpc": f"grpcs://127.0.0.1:{service.port}", "http": f"https://127.0.0.1:{service.port + 1}"}

    @property
    def trust(self) -> ssl.SSLContext:
        """TLS that takes its certificate for good."""
        return ssl.create_default_context(cafile=str(self.authority))

    def get(self, path: str) -> bytes:
        """What anybody gets from the HTTP side."""
        url = self.addresses["http"] + path
        with urllib.request.urlopen(url, context=self.trust, timeout=300) as answer:
            return bytes(answer.read())

    def channel(self) -> grpc.Channel:
        """A connection to the gRPC side."""
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        return grpc.secure_channel(f"127.0.0.1:{self.service.port}", credentials)

    @contextmanager
    def connection(self) -> Iterator[ssl.SSLSocket]:
        """A connection to the HTTP side, for bytes."""
        with (
            socket.create_connection(("127.0.0.1", self.service.port + 1), timeout=300) as plain,
            self.trust.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            yield connection


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    home, authority = folder / "home", trustme.CA()
    tokens = {name: add_token(home / "tokens.json", name, role) for name, role in (("alice", "full"), ("bob", "read"))}
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(folder / "certificate.pem", append=True)
    flow = small_flow(folder)
    config = yaml.safe_load(flow.read_text())
    config["executors"].append({"name": "raising", "uses": "tests.raising.Raising", "host": "127.0.0.1"})
    flow.write_text(yaml.safe_dump(config, sort_keys=False))
    variables = {
        "ATTUNE_TLS_CERTIFICATE": str(folder / "certificate.pem"),
        "ATTUNE_TLS_KEY": str(folder / "key.pem"),
        "ATTUNE_MAX_REQUEST": str(LIMIT),
        "ATTUNE_REQUESTS_PER_SECOND": "0",
    }
    with running(flow, home, folder / "service.log", **variables) as service:
        yield Guarded(service, home, tokens, folder / "authority.pem")
    # Clients are still connected, and one follows a run that does not end.
    assert "is killed" not in (folder / "service.log").read_text()


@pytest.fixture(autouse=True)
def _trusting(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_CA", str(guarded.authority))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("ATTUNE_TOKEN", raising=False)


@pytest.fixture(params=["grpc", "http"])
def call(request: pytest.FixtureRequest, guarded: Guarded) -> Callable[[str | None], Transport]:
    """A function: `call("alice")` is a way to the service with Alice's token; a name without a token is the token itself."""

    def transport(name: str | None) -> Transport:
        return connect(guarded.addresses[request.param], "flows/finetune.yml", guarded.tokens.get(name or "", name))

    return transport


@pytest.mark.parametrize("token", [None, "attune_wrong", "service"])
def test_nobody_gets_in_without_a_token(call: Callable[[str | None], Transport], token: str | None) -> None:
    with pytest.raises(AuthenticationError, match="asks for a token"):
        call(token).call("/runs/list", [RunQuery()])


def test_a_token_opens_what_its_role_allows(call: Callable[[str | None], Transport]) -> None:
    assert call("alice").call("/runs/list", [RunQuery()]) == call("bob").call("/runs/list", [RunQuery()])
    with pytest.raises(AuthorizationError, match="'bob' may only read"):
        call("bob").call("/runs/delete", [RunQuery(name="x")])
    with pytest.raises(RunNotFound):
        call("alice").call("/runs/delete", [RunQuery(name="x")])


def test_what_is_too_large_is_refused(call: Callable[[str | None], Transport]) -> None:
    large = TrainingExample(image=bytes(LIMIT), captions=["x"])
    with pytest.raises(LimitExceeded):
        call("alice").call("/push", [large], {"name": "x", "upload": "x"})
    with pytest.raises(AuthenticationError):
        call(None).call("/push", [large], {"name": "x", "upload": "x"})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_it_was_raised(call: Callable[[str | None], Transport], kind: type[AttuneError]) -> None:
    message = "The useful sentence first. Then what to do\n- and a list: \u00e9\U0001f600"
    with pytest.raises(AttuneError) as caught:
        call("alice").call("/search", [SearchDocument(key=kind.__name__, text=message)])
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_a_mistake_of_the_service_is_owned_and_its_details_are_not_told(
    call: Callable[[str | None], Transport], guarded: Guarded
) -> None:
    with pytest.raises(AttuneError, match=r"by a mistake of its own \(ValueError\)") as caught:
        call("alice").call("/search", [SearchDocument(key="mistake")])
    assert type(caught.value) is AttuneError
    assert DETAIL not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert DETAIL in (guarded.home.parent / "service.log").read_text()


def test_what_is_not_served_is_named(call: Callable[[str | None], Transport]) -> None:
    with pytest.raises(ServiceUnavailable, match="does not serve"):
        call("alice").call("/index", [SearchDocument()])


def test_a_traceback_is_told_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_DEBUG", "1")
    service_settings.cache_clear()
    told = str(error_of(ValueError(DETAIL)))
    monkeypatch.undo()
    service_settings.cache_clear()
    assert DETAIL in told
    assert DETAIL not in str(error_of(ValueError(DETAIL)))
    assert isinstance(error_of(DataError("x")), DataError)


def test_health_is_open_to_probes(guarded: Guarded) -> None:
    assert guarded.get("/") == b"{}"
    with guarded.channel() as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=300)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    "method",
    [
        "/jina.JinaInfoRPC/_status",
        "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery",
        "/jina.JinaGatewayDryRunRPC/dry_run",
        "/jina.JinaSingleDataRequestRPC/process_single_data",
        "/jina.JinaSingleDocumentRequestRPC/stream_doc",
        "/jina.JinaDataRequestRPC/process_data",
        "/jina.JinaExecutorSnapshot/snapshot",
    ],
)
def test_jinas_other_methods_tell_strangers_nothing(guarded: Guarded, method: str) -> None:
    with guarded.channel() as channel:
        refused = channel.unary_unary(method).future(b"", timeout=300).exception()
    assert refused.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)


def test_the_documentation_loads_nothing_from_elsewhere(guarded: Guarded) -> None:
    page = guarded.get("/docs").decode()
    assert "https://" not in page
    for part in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/docs/static/{part}" in page
        assert len(guarded.get(f"/docs/static/{part}")) > 10_000
    assert b"/runs/submit" in guarded.get("/openapi.json")
    with pytest.raises(HTTPError, match="404"):
        guarded.get("/docs/static/..%2fcore.py")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_without_encryption_there_is_no_answer(guarded: Guarded, scheme: str) -> None:
    port = guarded.service.port + (scheme == "http")
    with pytest.raises(AttuneError):
        connect(f"{scheme}://127.0.0.1:{port}", "flows/finetune.yml", guarded.tokens["alice"]).call("/runs/list", [])


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_certificate_of_somebody_else_is_not_trusted(
    guarded: Guarded, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("ATTUNE_CA", str(tmp_path / "other.pem"))
    with pytest.raises(ServiceUnavailable, match="ATTUNE_CA"):
        connect(guarded.addresses[scheme], "flows/finetune.yml", guarded.tokens["alice"]).call("/runs/list", [])


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_of_tls_are_refused(guarded: Guarded) -> None:
    context = guarded.trust
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        urllib.request.urlopen(guarded.addresses["http"], context=context, timeout=300)


def test_a_run_goes_through_and_no_secret_is_written_down(guarded: Guarded) -> None:
    """The run manager calls its own gateway, over TLS and with the service's token."""
    attune = AttuneClient(guarded.addresses["grpc"], token=guarded.tokens["alice"])
    attune.push("shapes", coloured_examples())
    run = attune.fit(model="starter", train_data="shapes", run_name="my-run")
    reached = (*END_STATES, "TRAINING")  # nobody here trains: it is validated, which the run manager asked for
    fingerprint = attune.list_datasets()[0].fingerprint
    assert wait_until(
        lambda: fingerprint in (guarded.home / "runs/default/my-run/run.json").read_text() or run.status() in reached, 400
    )
    headers, verify = {"authorization": f"Bearer {guarded.tokens['bob']}"}, str(guarded.authority)
    following = f"{guarded.addresses['http']}/runs/my-run/events"
    guarded.open.append(requests.get(following, headers=headers, verify=verify, timeout=300, stream=True))
    with pytest.raises(AuthenticationError):
        AttuneClient(guarded.addresses["http"], token="attune_guess_0123456789").list_runs()
    own = guarded.home / ".service-token"
    key = (guarded.home.parent / "key.pem").read_bytes().splitlines()[1]
    secrets = {**{name: token.encode() for name, token in guarded.tokens.items()}, "service": own.read_bytes(), "key": key}
    secrets["guess"] = b"attune_guess_0123456789"
    files = [
        path for path in guarded.home.parent.rglob("*") if path.is_file() and path not in (own, own.parents[1] / "key.pem")
    ]
    assert {"run.json", "environment.json", "events.jsonl", "service.log"} <= {path.name for path in files}
    found = [(path.name, name) for path in files for name, secret in secrets.items() if secret in path.read_bytes()]
    assert found == []


def test_a_web_page_does_not_reach_the_service_of_its_reader(guarded: Guarded) -> None:
    answer = requests.post(
        guarded.addresses["http"] + "/runs/list",
        json={"data": []},
        headers={"origin": "https://evil.example"},
        verify=str(guarded.authority),
        timeout=300,
    )
    assert answer.status_code == 401
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_a_head_that_comes_letter_by_letter_is_not_waited_for(guarded: Guarded, before: bytes) -> None:
    with guarded.connection() as connection:
        if before:
            connection.sendall(before)
            assert b"200" in connection.recv(10_000)
        start, ended = time.monotonic(), threading.Event()

        def send_slowly() -> None:
            with suppress(OSError):  # the connection is closed
                for letter in b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
                    connection.sendall(bytes([letter]))
                    if ended.wait(0.2):
                        return

        sender = threading.Thread(target=send_slowly)
        sender.start()
        with suppress(OSError):
            while connection.recv(10_000):  # of an answer before there may be a rest
                pass
        ended.set()
        sender.join()
    assert 0.5 * HEAD_SECONDS < time.monotonic() - start < 60  # letters alone would take 200 s


def test_a_body_may_take_longer_than_a_head(guarded: Guarded) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"data": '
        time.sleep(1.2 * HEAD_SECONDS)
        yield b"[]}"

    answer = requests.post(
        guarded.addresses["http"] + "/runs/list",
        data=pieces(),
        headers={"authorization": f"Bearer {guarded.tokens['bob']}", "content-type": "application/json"},
        verify=str(guarded.authority),
        timeout=300,
    )
    assert answer.status_code == 200, answer.text


def asked(channel: grpc.Channel, request: jina_pb2.DataRequestProto, token: str) -> jina_pb2.StatusProto:
    """The status of the answer."""
    ask = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
    answer = ask(request.SerializeToString(), timeout=300, metadata=[("authorization", f"Bearer {token}")])
    return jina_pb2.DataRequestProto.FromString(answer).header.status


def test_a_removed_token_is_of_no_more_use_on_what_was_opened_with_it(guarded: Guarded) -> None:
    token = add_token(guarded.home / "tokens.json", "carol", "full")
    request = request_of("/runs/list", [], {}).SerializeToString()
    go_on = threading.Event()

    def requests_of_carol() -> Iterator[bytes]:
        yield request
        go_on.wait(60)
        yield request

    with guarded.channel() as channel:
        stream = channel.stream_stream("/jina.JinaRPC/Call")
        answers = stream(requests_of_carol(), timeout=300, metadata=[("authorization", f"Bearer {token}")])
        next(answers)
        remove_token(guarded.home / "tokens.json", "carol")
        go_on.set()
        with pytest.raises(grpc.RpcError) as refused:
            next(answers)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_what_little_is_asked_for_with_is_little(guarded: Guarded, call: Callable[[str | None], Transport]) -> None:
    with pytest.raises(LimitExceeded, match="larger than 1,000,000 bytes"):
        call("bob").call("/runs/get", [RunQuery(name="x" * 1_100_000)])
    with pytest.raises(LimitExceeded, match="more than 16 documents"):
        call("bob").call("/runs/list", [RunQuery()] * 17)
    start = time.monotonic()
    with pytest.raises(RunNotFound) as unknown:
        call("bob").call("/runs/get", [RunQuery(name="x" * 900_000)])
    assert len(str(unknown.value)) < 5000
    assert time.monotonic() - start < 30


def test_parameters_are_little(guarded: Guarded) -> None:
    request = request_of("/runs/list", [], {str(number): "x" for number in range(5000)})
    with guarded.channel() as channel, pytest.raises(grpc.RpcError, match="parameters are larger than 10,000 bytes"):
        asked(channel, request, guarded.tokens["bob"])


def test_a_request_that_says_it_has_failed_is_answered_all_the_same(guarded: Guarded) -> None:
    """Executors hand a request's header back, and its status would be taken for theirs."""
    request = request_of("/runs/list", [], {})
    request.header.status.code = jina_pb2.StatusProto.ERROR
    request.header.status.exception.name = "Evil\nFORGED"
    request.routes.add(executor="FORGED").status.code = jina_pb2.StatusProto.ERROR
    with guarded.channel() as channel:
        status = asked(channel, request, guarded.tokens["bob"])
    assert status.code != jina_pb2.StatusProto.ERROR
    assert "FORGED" not in (guarded.home.parent / "service.log").read_text()


def test_nobody_watches_the_health_without_end(guarded: Guarded) -> None:
    with guarded.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        next(iter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=300)))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_stranger_who_never_ends_is_answered_soon(guarded: Guarded) -> None:
    with guarded.connection() as connection:
        start = time.monotonic()
        connection.sendall(b"POST /runs/list HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n{")
        assert b" 401 " in connection.recv(1000)
        with suppress(OSError):
            while connection.recv(1000):
                pass
    assert time.monotonic() - start < 60


def test_event_streams_that_are_opened_at_once_are_not_more_than_allowed(guarded: Guarded) -> None:
    attune = AttuneClient(guarded.addresses["grpc"], token=guarded.tokens["alice"])
    if not [run for run in attune.list_runs() if run.name == "my-run"]:
        attune.push("few", [TrainingExample(image=picture("red"), captions=["red"])])
        attune.fit(model="starter", train_data="few", run_name="my-run")
    address = f"{guarded.addresses['http']}/runs/my-run/events"
    headers = {"authorization": f"Bearer {guarded.tokens['bob']}"}

    def opened(number: int) -> requests.Response:
        forged = {**headers, "x-forwarded-for": f"10.0.0.{number}"}
        return requests.get(address, headers=forged, verify=str(guarded.authority), timeout=300, stream=True)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(opened, range(30)))
    alive = sum(answer.status_code == 200 and bool(next(answer.iter_content(1), b"")) for answer in answers)
    for answer in answers:
        answer.close()
    assert 10 <= alive <= 20
