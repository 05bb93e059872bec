"""Who is let in, for what and how often, without a Flow around it."""

from pathlib import Path

import pytest

from attune.errors import (
    AuthenticationError,
    AuthorizationError,
    DataError,
    LimitExceeded,
    ServiceUnavailable,
    SettingsError,
)
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings
from attune.service.tokens import add_token, check_exposure, service_token, tokens_file
from executors.gateway.guard import MAX_DOCUMENTS, MAX_EXAMPLES, Caller, Guard, Rates, check_size

SERVED = set(ENDPOINTS) - {"/index", "/search"}


class Clock:
    """Seconds that pass when they are told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def _fresh_settings(attune_home: Path) -> None:
    service_settings.cache_clear()


def test_without_tokens_everybody_may_do_everything() -> None:
    caller = Guard().caller("", "127.0.0.1")
    assert caller == Caller("127.0.0.1", True)
    for path in SERVED:
        Guard().admit(caller, path, SERVED)


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer nonsense", "Basic YWxpY2U6eA==", "Bearer \xff"])
def test_with_tokens_nobody_else_gets_in(sent: str) -> None:
    token = add_token(tokens_file(), "alice", "full")
    with pytest.raises(AuthenticationError, match="asks for a token"):
        Guard().caller(sent, "10.0.0.1")
    with pytest.raises(AuthenticationError):
        Guard().caller(token, "10.0.0.1")  # not without its scheme
    assert Guard().caller(f"bearer  {token}", "10.0.0.1").name == "alice"


def test_the_first_token_closes_a_service_that_runs_and_a_lost_file_does_not_open_it() -> None:
    guard = Guard()
    guard.caller("", "127.0.0.1")
    add_token(tokens_file(), "alice", "full")
    with pytest.raises(AuthenticationError):
        guard.caller("", "127.0.0.1")
    tokens_file().unlink()
    with pytest.raises(AuthenticationError):
        guard.caller("", "127.0.0.1")


def test_the_service_knows_itself_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_REQUESTS_PER_SECOND", "0.1")
    add_token(tokens_file(), "alice", "full")
    guard = Guard()
    for _ in range(100):
        assert guard.caller(f"Bearer {service_token()}", "127.0.0.1") == Caller("service", True)


@pytest.mark.parametrize("path", sorted(SERVED))
def test_a_read_only_token_opens_exactly_what_changes_nothing(path: str) -> None:
    token = add_token(tokens_file(), "bob", "read")
    guard = Guard()
    caller = guard.caller(f"Bearer {token}", "127.0.0.1")
    if ENDPOINTS[path].changes:
        with pytest.raises(AuthorizationError, match="'bob' may only read"):
            guard.admit(caller, path, SERVED)
    else:
        guard.admit(caller, path, SERVED)


@pytest.mark.parametrize("path", ["", "/", "/nope", "/index", "_jina_dry_run_", "/default"])
def test_what_is_not_served_is_refused_by_name(path: str) -> None:
    with pytest.raises(ServiceUnavailable, match="does not serve .* It serves: /datasets/commit"):
        Guard().admit(Caller("alice", True), path, SERVED | {"_jina_dry_run_", "/default"})


def test_a_burst_passes_and_then_the_rate_counts_for_each_caller() -> None:
    clock = Clock()
    rates = Rates(2, clock)  # 20 at once, then 2 a second
    for _ in range(20):
        rates.spend("alice")
    with pytest.raises(LimitExceeded, match="alice asks more often than 2 times a second") as caught:
        rates.spend("alice")
    assert 0.5 <= caught.value.seconds < 0.51
    rates.spend("bob")
    clock.seconds += caught.value.seconds
    rates.spend("alice")
    with pytest.raises(LimitExceeded):
        rates.spend("alice")
    clock.seconds += 1000
    for _ in range(20):
        rates.spend("alice")


def test_callers_that_stay_away_are_forgotten() -> None:
    clock = Clock()
    rates = Rates(2, clock)
    for number in range(10_001):
        rates.spend(f"10.0.{number}")
    clock.seconds += 60
    rates.spend("alice")
    assert len(rates.buckets) < 10


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0, Clock())
    for _ in range(1000):
        rates.spend("alice")


def test_strangers_are_held_to_the_rate_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_REQUESTS_PER_SECOND", "0.1")
    add_token(tokens_file(), "alice", "full")
    guard = Guard()
    with pytest.raises(AuthenticationError):
        guard.caller("Bearer guess", "10.0.0.1")
    with pytest.raises(LimitExceeded):
        guard.caller("Bearer guess", "10.0.0.1")


def test_too_many_documents_and_parameters_for_single_executors_are_refused() -> None:
    check_size("/push", MAX_EXAMPLES, {"name": "x", "upload": "y", "__results__": {}})
    check_size("/runs/file", MAX_DOCUMENTS, {})
    for path, most in (("/push", MAX_EXAMPLES), ("/runs/file", MAX_DOCUMENTS)):
        with pytest.raises(LimitExceeded, match=f"more than {most} documents. Send several requests"):
            check_size(path, most + 1, {})
    for name in ("run_manager", "trainer__epochs"):
        with pytest.raises(DataError, match=name):
            check_size("/push", 1, {name: {}})


@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        ({}, True),
        ({"ATTUNE_HOST": "::1"}, True),
        ({"ATTUNE_HOST": "localhost"}, True),
        ({"ATTUNE_HOST": "0.0.0.0"}, False),
        ({"ATTUNE_HOST": "10.1.2.3"}, False),
        ({"ATTUNE_HOST": "0.0.0.0", "ATTUNE_INSECURE": "1"}, True),
        ({"ATTUNE_HOST": "0.0.0.0", "ATTUNE_INSECURE": "0"}, False),
        ({"ATTUNE_HOST": "0.0.0.0", "ATTUNE_TOKENS": "tokens.json"}, True),
    ],
)
def test_the_network_is_opened_to_holders_of_tokens_alone(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], opens: bool
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if opens:
        check_exposure()
    else:
        with pytest.raises(SettingsError, match="ATTUNE_HOST = .* has no tokens. Make one with"):
            check_exposure()


def test_a_certificate_without_its_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_TLS_CERTIFICATE", str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match=r"ATTUNE_TLS_CERTIFICATE = .*none.pem'?: is no file"):
        service_settings()
    (tmp_path / "none.pem").touch()
    with pytest.raises(SettingsError, match="- ATTUNE_TLS_CERTIFICATE and ATTUNE_TLS_KEY belong together"):
        service_settings()
