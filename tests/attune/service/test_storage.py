"""How much is on the disk, and whether more may be put there."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attune.errors import StorageFull
from attune.figures import say_size
from attune.service import storage
from attune.service.settings import service_settings
from attune.service.storage import check_room, report

MB = 1024 * 1024


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that sets ATTUNE_DISK_QUOTA."""

    def set_quota(value: str) -> None:
        monkeypatch.setenv("ATTUNE_DISK_QUOTA", value)
        service_settings.cache_clear()

    return set_quota


@pytest.fixture(autouse=True)
def fresh(attune_home: Path) -> None:
    """Nothing counted before."""
    service_settings.cache_clear()
    storage._last.clear()
    storage._taken.clear()


def write(path: Path, count: int = MB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(count))
    return path


def test_a_service_that_holds_nothing_yet_is_reported_too(attune_home: Path) -> None:
    found = report()

    assert not attune_home.exists()
    assert (found.runs, found.datasets, found.uploads, found.indexes, found.quota) == (0, 0, 0, 0, 0)
    assert found.free > 0


def test_bytes_are_counted_by_kind(attune_home: Path, quota: Callable[[str], None]) -> None:
    quota("2GB")
    write(attune_home / "runs" / "default" / "first" / "checkpoints" / "last.pt", 3 * MB)
    write(attune_home / "runs" / "other" / "first" / ".last.pt.0123abcd", 2 * MB)
    write(attune_home / "datasets" / "content" / "f1" / "pixels-1.npy", 4 * MB)
    write(attune_home / "datasets" / "uploads" / "u1" / "part-1.parquet", 1 * MB)
    write(attune_home / "index" / "default.lance" / "data", 7 * MB)

    found = report()

    assert [size // MB for size in (found.runs, found.datasets, found.uploads, found.indexes)] == [5, 4, 1, 7]
    assert found.quota == 2 * 10**9


def test_a_file_with_several_names_counts_once_and_as_its_datasets(attune_home: Path) -> None:
    part = write(attune_home / "datasets" / "uploads" / "u1" / "part-1.parquet", 2 * MB)
    for number in (1, 2):
        content = attune_home / "datasets" / "content" / f"f{number}"
        content.mkdir(parents=True)
        (content / part.name).hardlink_to(part)

    found = report()

    assert (found.datasets // MB, found.uploads) == (2, 0)


def test_room_that_a_file_has_taken_counts_and_a_hole_in_it_does_not(attune_home: Path) -> None:
    path = attune_home / "runs" / "default" / "first" / "file"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(50 * MB)
        os.posix_fallocate(file.fileno(), 0, 2 * MB)

    assert 2 * MB <= report().runs < 3 * MB


def test_links_are_not_followed(attune_home: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "big", 5 * MB)
    (attune_home / "runs").mkdir(parents=True)
    (attune_home / "runs" / "link").symlink_to(tmp_path / "elsewhere")

    assert report().runs < MB


def test_a_count_is_good_for_a_while_and_free_room_is_always_new(attune_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LEAST_AGE", 60.0)  # on a busy machine the next line may take seconds
    before = report()
    big = write(attune_home / "runs" / "default" / "first" / "file", 40 * MB)
    os.sync()

    again = report()

    assert again.runs == before.runs == 0
    assert big.stat().st_size > 0
    storage._last.clear()
    storage._taken.clear()
    assert report().runs >= 40 * MB


def test_a_thousand_runs_are_reported_quickly_and_then_from_memory(attune_home: Path) -> None:
    for number in range(1000):
        folder = attune_home / "runs" / "default" / f"run-{number}"
        for name in ("run.json", "events.jsonl", "checkpoints/start", "artifact/weights", "report/index.html"):
            write(folder / name, 10)

    start = time.process_time()
    found = report()
    counted = time.process_time() - start
    start = time.process_time()
    for _ in range(100):
        report()
    again = (time.process_time() - start) / 100

    assert found.runs >= 5000 * 10
    assert counted < 2
    assert again < 0.01


def test_what_fits_passes(attune_home: Path, quota: Callable[[str], None]) -> None:
    quota("1GB")
    write(attune_home / "runs" / "default" / "first" / "file", 2 * MB)

    check_room(0, "Nothing")
    check_room(900 * 10**6, "A run")


def test_what_does_not_fit_into_the_quota_is_refused_with_the_numbers(
    attune_home: Path, quota: Callable[[str], None]
) -> None:
    quota("10MB")
    write(attune_home / "runs" / "default" / "first" / "file", 2 * MB)
    write(attune_home / "datasets" / "content" / "f1" / "part-1.parquet", 3 * MB)

    with pytest.raises(StorageFull) as caught:
        check_room(6 * 10**6, "The run 'second'")

    assert re.match(
        r"The run 'second' needs 6\.0 MB, and 5\.\d MB of the 10\.0 MB that ATTUNE_DISK_QUOTA allows are taken "
        r"\(runs 2\.\d MB, datasets 3\.\d MB, uploads 0 bytes, indexes 0 bytes\)\. Delete runs or datasets that are no "
        r"longer needed, or raise the quota$",
        str(caught.value),
    )


def test_what_does_not_fit_on_the_disk_is_refused_before_the_disk_is_full(attune_home: Path) -> None:
    total, free = storage._disk(attune_home)
    reserve = min(storage.RESERVE, total // 50)

    check_room(free - reserve - 100 * MB, "A run")
    with pytest.raises(StorageFull, match=r"^A run needs .*B on the disk of .*, which has .*B left of .*B\. Delete runs"):
        check_room(free - reserve + 100 * MB, "A run")


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1, "1 kB"), (1500, "2 kB"), (2_340_000, "2.3 MB"), (1_900_000_000, "1.9 GB"), (4 * 10**12, "4.0 TB")],
)
def test_sizes_are_said_for_people(count: int, said: str) -> None:
    assert say_size(count) == said


def test_what_was_granted_a_moment_ago_is_taken(attune_home: Path, quota: Callable[[str], None]) -> None:
    """The disk's use is counted every few seconds only, and many may push at once."""
    quota("10MB")
    check_room(6 * 10**6, "One push", taken=True)
    check_room(3 * 10**6, "What only asks")
    with pytest.raises(StorageFull, match="Another push needs 6.0 MB, and 6.0 MB of the 10.0 MB"):
        check_room(6 * 10**6, "Another push", taken=True)
