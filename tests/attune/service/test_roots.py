"""Which of the paths that come with a request are touched: real folders, links and names that cannot be."""

from pathlib import Path

import pytest

from attune.service.roots import is_below, local_path, request_roots
from attune.service.settings import service_settings
from attune.service.tokens import add_token, tokens_file

IMPOSSIBLE = ["", "\x00", "a\x00b", "a" * 300, "\ud800", "~nobody-of-this-name/x", "a/" * 3000]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").touch()
    (tmp_path / "secret").touch()
    (folder / "out").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "inner")
    (folder / "circle").symlink_to(folder / "circle")
    (tmp_path / "root-beside").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _fresh_settings(attune_home: Path) -> None:
    service_settings.cache_clear()


@pytest.mark.parametrize("name", ["", "inner", "inner/file", "in/file", "inner/../inner/file", "not/there", "./in/."])
def test_what_lies_in_a_root_is_below_it(root: Path, name: str) -> None:
    assert is_below(root / name, [Path("/nowhere"), root])


@pytest.mark.parametrize(
    "name", ["..", "../secret", "out/secret", "in/../../secret", "../root-beside", "/etc/passwd", "out"]
)
def test_links_and_dots_do_not_lead_out_of_a_root(root: Path, name: str) -> None:
    assert not is_below(root / name, [root])
    assert local_path(str(root / name), [root]) is None


def test_links_in_a_circle_are_nowhere(root: Path) -> None:
    assert not is_below(root / "circle", [root])
    assert local_path(str(root / "circle"), None) is None


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_names_that_no_path_can_have_are_no_paths(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert local_path(name, [root / "inner"]) is None
    assert name == "" or local_path(name, None) is None


def test_what_is_not_there_and_what_may_not_be_named_are_not_told_apart(root: Path) -> None:
    assert local_path(str(root / "not-there"), [root]) is None
    assert local_path(str(root.parent / "secret"), [root]) is None
    assert local_path(str(root / "inner" / "file"), [root]) == root / "inner" / "file"
    assert local_path(str(root.parent / "secret"), None) == root.parent / "secret"


def test_a_users_own_folder_is_meant_by_a_tilde(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    assert local_path("~/inner", [root]) == root / "inner"
    assert local_path("~/../secret", [root]) is None


def test_requests_may_name_anything_only_where_nobody_else_can_ask(
    attune_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert request_roots() is None
    add_token(tokens_file(), "alice", "full")
    assert request_roots() == (attune_home / "runs",)
    monkeypatch.setenv("ATTUNE_MODEL_ROOTS", f"{tmp_path}:/models")
    service_settings.cache_clear()
    assert request_roots() == (attune_home / "runs", tmp_path, Path("/models"))


def test_a_service_that_is_told_to_do_without_tokens_serves_strangers_as_well(
    attune_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTUNE_INSECURE", "1")
    service_settings.cache_clear()
    assert request_roots() == (attune_home / "runs",)
