import hashlib
import json
import stat
import time
from pathlib import Path

import pytest

from attune.errors import SettingsError
from attune.service import tokens
from attune.service.settings import service_settings
from attune.service.tokens import Tokens, add_token, read_tokens, remove_token, service_token, tokens_file, tokens_required


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "tokens.json"


@pytest.fixture(autouse=True)
def _fresh_settings(attune_home: Path) -> None:
    service_settings.cache_clear()


def test_a_token_is_known_by_its_holder_and_kept_as_a_hash_alone(file: Path) -> None:
    alice, bob = add_token(file, "alice", "full"), add_token(file, "bob", "read")

    known = Tokens(file)
    assert [(known.holder(token).name, known.holder(token).role) for token in (alice, bob)] == [
        ("alice", "full"),
        ("bob", "read"),
    ]
    assert alice not in file.read_text()
    assert [entry["sha256"] for entry in json.loads(file.read_text())] == [
        hashlib.sha256(token.encode()).hexdigest() for token in (alice, bob)
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", ["", "attune_", "ä", "\udcff"])
def test_nothing_else_is_a_token(file: Path, wrong: str) -> None:
    token = add_token(file, "alice", "full")
    known = Tokens(file)
    assert known.holder(wrong) is None
    assert known.holder(token + wrong) is None or not wrong
    assert known.holder(json.loads(file.read_text())[0]["sha256"]) is None  # the hash is no token


def test_every_token_is_compared_whichever_matches(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = add_token(file, "alice", "full")
    add_token(file, "bob", "read")
    compared = []
    real = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda one, other: (compared.append(one), real(one, other))[1])
    assert Tokens(file).holder(first).name == "alice"
    assert len(compared) == 2


def test_changes_of_the_file_count_at_once(file: Path) -> None:
    token = add_token(file, "alice", "full")
    known = Tokens(file)
    assert known.holder(token)
    remove_token(file, "alice")
    assert known.holder(token) is None
    again = add_token(file, "alice", "read")
    assert known.holder(again).role == "read"
    file.unlink()
    assert known.holder(again) is None


def test_a_file_that_cannot_be_read_lets_nobody_in(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = add_token(file, "alice", "full")
    known = Tokens(file)
    assert known.holder(token)
    time.sleep(0.01)
    file.write_text('[{"name": "alice"}]')
    assert known.holder(token) is None
    assert "is no file of tokens" in caplog.text


@pytest.mark.parametrize(
    ("name", "role"), [("", "full"), ("../x", "full"), ("service", "full"), ("a" * 101, "full"), ("a", "write")]
)
def test_names_and_roles_are_checked(file: Path, name: str, role: str) -> None:
    with pytest.raises(SettingsError, match="cannot be a token's name|role = 'write' is unknown"):
        add_token(file, name, role)
    assert read_tokens(file) == []


def test_a_name_is_given_once_and_an_unknown_one_cannot_be_removed(file: Path) -> None:
    add_token(file, "alice", "full")
    with pytest.raises(SettingsError, match="There is a token of the name 'alice'"):
        add_token(file, "alice", "read")
    with pytest.raises(SettingsError, match="no token of the name 'bob' .* Tokens: alice"):
        remove_token(file, "bob")


def test_tokens_are_asked_for_as_soon_as_there_is_a_file(attune_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tokens_required()
    add_token(tokens_file(), "alice", "full")
    assert tokens_required()
    remove_token(tokens_file(), "alice")
    assert tokens_required()  # nobody has one, and nobody gets in

    monkeypatch.setenv("ATTUNE_TOKENS", str(attune_home / "elsewhere.json"))
    service_settings.cache_clear()
    assert tokens_required()  # one was named: it is only yet to come


def test_the_services_own_token_is_the_same_for_all_its_processes_and_readable_by_none_else(attune_home: Path) -> None:
    token = service_token()
    assert token == service_token() == (attune_home / ".service-token").read_text()
    assert len(token) > 40
    assert stat.S_IMODE((attune_home / ".service-token").stat().st_mode) == 0o600
