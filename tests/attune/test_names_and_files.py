import hashlib
from pathlib import Path

import pytest

from attune.files import sha256, whole_file, write_text
from attune.names import check_name, random_name


@pytest.mark.parametrize("name", ["a", "Run-1", "v1.2_final", "9lives", "x" * 100])
def test_accepts_plain_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "-x", "_x", "a b", "é", "a\n", "x" * 101])
def test_refuses_names_that_could_leave_the_folder_or_confuse(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid name"):
        check_name(name)


def test_random_names_are_valid_and_differ() -> None:
    names = {random_name() for _ in range(50)}

    assert {check_name(name) for name in names} == names
    assert len(names) >= 49  # 20 x 20 x 65536 names: two equal ones among 50 are next to impossible


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    with pytest.raises(FileNotFoundError, match="absent"), whole_file(tmp_path / "a.txt") as draft:
        draft.write_bytes(b"half of the n" + (tmp_path / "absent").read_bytes())

    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_write_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old and longer")
    write_text(path, "né")

    assert path.read_bytes() == "né".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\xff" * 70_000)

    assert sha256(tmp_path / "a") == hashlib.sha256(b"\x00\xff" * 70_000).hexdigest()
