"""What is removed after its time, and what never is."""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attune.data import store
from attune.files import locked, whole_file
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.service.retention import DAY, HOUR, UNUSED, sweep
from attune.service.settings import service_settings

CHECKPOINTS = (
    "start.safetensors",
    "best.safetensors",
    "chosen.safetensors",
    "last.pt",
    "within.pt",
    "optimizer.safetensors",
)
KB = 1024


@pytest.fixture(autouse=True)
def settings(attune_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes are kept for 2 hours, checkpoints for 5 days."""
    monkeypatch.setenv("ATTUNE_KEEP_UPLOADS_HOURS", "2")
    monkeypatch.setenv("ATTUNE_KEEP_CHECKPOINTS_DAYS", "5")
    service_settings.cache_clear()


def make_run(name: str, state: str, days: float = 0, **fields: object) -> RunFolder:
    """A run with all of its checkpoints, that came to its end so many days ago."""
    folder = RunFolder.create(FinetuningRun(name=name))
    ended = datetime.fromtimestamp(time.time() - days * DAY, UTC).isoformat()

    def change(run: FinetuningRun) -> None:
        for field, value in {"state": state, "finished_at": ended, **fields}.items():
            setattr(run, field, value)

    folder.update(change)
    folder.checkpoints.mkdir()
    for checkpoint in CHECKPOINTS:
        (folder.checkpoints / checkpoint).write_bytes(os.urandom(8 * KB))
    return folder


def checkpoints(folder: RunFolder) -> list[str]:
    return [name for name in CHECKPOINTS if (folder.checkpoints / name).exists()]


def age(path: Path, seconds: float) -> Path:
    """Makes a file, or a folder with all that is in it, older."""
    then = time.time() - seconds
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then))
    return path


def test_an_empty_home_is_swept_too(attune_home: Path) -> None:
    assert sweep() == ([], 0)
    assert not attune_home.exists()


def test_a_finished_run_loses_at_once_what_only_a_training_goes_on_from() -> None:
    folder = make_run("first", "FINISHED")

    swept = sweep()

    assert checkpoints(folder) == ["start.safetensors", "chosen.safetensors", "optimizer.safetensors"]
    assert sorted(swept.removed) == [
        f"runs/default/first/checkpoints/{name}" for name in ("best.safetensors", "last.pt", "within.pt")
    ]
    assert swept.bytes == 3 * 8 * KB
    assert sweep() == ([], 0)


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_can_be_resumed_keeps_everything_for_its_days(state: str) -> None:
    young, old = make_run("young", state, days=4.9), make_run("old", state, days=5.1)

    sweep()

    assert checkpoints(young) == list(CHECKPOINTS)
    assert checkpoints(old) == ["start.safetensors", "chosen.safetensors"]


def test_a_finished_run_keeps_its_optimizers_state_for_its_days() -> None:
    young, old = make_run("young", "FINISHED", days=4.9), make_run("old", "FINISHED", days=5.1)

    sweep()

    assert "optimizer.safetensors" in checkpoints(young)
    assert "optimizer.safetensors" not in checkpoints(old)


@pytest.mark.parametrize("state", ["CREATED", "VALIDATING", "TRAINING", "EVALUATING", "EXPORTING"])
def test_nothing_of_a_run_that_is_not_at_an_end_is_touched(state: str) -> None:
    folder = make_run("first", state, days=1000)
    draft = folder.checkpoints / ".last.pt.0123abcd"
    draft.write_bytes(b"half")
    age(draft, 1000 * DAY)

    assert sweep() == ([], 0)
    assert draft.exists()


def test_nothing_of_a_run_that_somebody_works_on_is_touched() -> None:
    folder = make_run("first", "FAILED", days=1000)  # it is being resumed: its state comes next
    with folder.locked("stage"):
        assert sweep() == ([], 0)

    assert len(sweep().removed) == 4


def test_a_run_that_cannot_be_read_keeps_all_of_its_files_and_all_datasets(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> None:
    push("shapes", make_examples(2))
    content = store.content_folder(push("shapes", make_examples(3)).fingerprint)
    (attune_home / "datasets" / "shapes.json").unlink()
    broken, other = make_run("broken", "FAILED", days=9), make_run("other", "FAILED", days=9)
    (broken.path / "run.json").write_text("{")

    sweep()
    removed = sweep(time.time() + DAY).removed

    assert checkpoints(broken) == list(CHECKPOINTS)
    assert content.exists()
    assert not [path for path in removed if path.startswith("datasets/content")]
    assert checkpoints(other) == ["start.safetensors", "chosen.safetensors"]


def test_drafts_of_killed_processes_are_removed_after_an_hour(attune_home: Path) -> None:
    folder = make_run("first", "CANCELLED")
    drafts = [
        folder.checkpoints / ".last.pt.0123abcd",
        attune_home / "datasets" / "uploads" / "u1" / ".part-1.parquet.89abcdef",
        attune_home / "datasets" / ".shapes.json.00000000",
        attune_home / "runs" / "default" / ".half.0123abcd" / "run.json",
    ]
    for draft in drafts:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(b"half")
    (folder.path / ".stage.lock").touch()
    kept = folder.checkpoints / ".kept"
    kept.touch()
    age(attune_home, 0.9 * HOUR)
    assert sweep() == ([], 0)

    age(attune_home, 1.1 * HOUR)
    removed = sweep().removed

    assert len(removed) == len(drafts)
    assert not any(draft.exists() for draft in drafts)
    assert kept.exists()
    assert folder.load().state == "CANCELLED"


def test_a_draft_that_is_being_written_is_left_however_long_it_takes(attune_home: Path) -> None:
    path = attune_home / "datasets" / "big.json"
    with whole_file(path) as draft:
        draft.write_text("the first half, ")
        age(draft, 0.5 * HOUR)
        assert sweep() == ([], 0)
        draft.write_text("and the second")

    assert path.read_text() == "and the second"


def test_pushes_that_nobody_went_on_with_are_removed(attune_home: Path) -> None:
    uploads = attune_home / "datasets" / "uploads"
    for name, hours in (("given-up", 2.1), ("slow", 1.9), ("gone-on-with", 50)):
        (uploads / name).mkdir(parents=True)
        (uploads / name / "part-1.parquet").write_bytes(os.urandom(4 * KB))
        age(uploads / name, hours * HOUR)
    (uploads / "gone-on-with" / "part-2.parquet").touch()

    swept = sweep()

    assert swept == (["datasets/uploads/given-up"], 4 * KB)
    assert sorted(path.name for path in uploads.iterdir()) == ["gone-on-with", "slow"]


@pytest.fixture
def datasets(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> dict[str, str]:
    """Fingerprints by what refers to them: a name, a run at work, a run at an end, nothing. All have old pixels."""
    found = {}
    for number, kind in enumerate(("name", "at_work", "ended", "nothing"), start=2):
        found[kind] = push(kind, make_examples(number)).fingerprint
        content = store.content_folder(found[kind])
        (content / "pixels-1.npy").write_bytes(os.urandom(8 * KB))
        (content / "pixels-1.json").write_text(json.dumps([]))
        age(content, 2 * HOUR)
        if kind != "name":
            (attune_home / "datasets" / f"{kind}.json").unlink()
    make_run("working", "TRAINING", val_fingerprint=found["at_work"])
    make_run("done", "FINISHED", callback_fingerprints={"shapes": found["ended"]})
    return found


def has_pixels(fingerprint: str) -> bool:
    return (store.content_folder(fingerprint) / "pixels-1.npy").exists()


def test_pixels_go_where_no_name_and_no_unfinished_run_wants_them(datasets: dict[str, str]) -> None:
    sweep()

    assert [kind for kind, fingerprint in datasets.items() if has_pixels(fingerprint)] == ["name", "at_work"]
    assert not list(store.content_folder(datasets["ended"]).glob("pixels-1.json"))
    assert store.read_index(datasets["ended"]).num_rows


def test_pixels_that_were_opened_a_moment_ago_or_are_being_made_are_left(datasets: dict[str, str]) -> None:
    ended, nothing = (store.content_folder(datasets[kind]) for kind in ("ended", "nothing"))
    (ended / "pixels-1.npy").touch()
    with locked(nothing / "pixels-1.lock"):
        sweep()

    assert has_pixels(datasets["ended"])
    assert has_pixels(datasets["nothing"])


def test_content_goes_once_nothing_has_referred_to_it_for_an_hour(datasets: dict[str, str]) -> None:
    start = time.time()
    for minutes in (0, 30, 59):
        sweep(start + 60 * minutes)
        assert store.content_folder(datasets["nothing"]).exists()

    removed = sweep(start + 61 * 60).removed

    assert removed == [f"datasets/content/{datasets['nothing']}"]
    assert [kind for kind, fingerprint in datasets.items() if store.content_folder(fingerprint).exists()] == [
        "name",
        "at_work",
        "ended",
    ]


def test_content_that_is_pushed_again_meanwhile_begins_anew(
    datasets: dict[str, str], make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> None:
    start = time.time()
    sweep(start)
    assert push("again", make_examples(5)).fingerprint == datasets["nothing"]
    sweep(start + 30 * 60)
    (store.home() / "datasets" / "again.json").unlink()

    sweep(start + 65 * 60)

    assert store.content_folder(datasets["nothing"]).exists()


def test_sweeping_beside_writers_loses_nothing(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> None:
    """A name moves to and fro between contents while those that nothing refers to are swept as soon as that was seen."""
    examples = make_examples(6)
    stop, failures = threading.Event(), []

    def write() -> None:
        try:
            for turn in range(30):
                report = push("moving", examples[: 3 + turn % 3], upload=f"upload-{turn}")
                assert store.describe("moving").fingerprint == report.fingerprint
                assert store.read_index(report.fingerprint).num_rows == 3 + turn % 3
        except BaseException as error:  # told by the test, not by the thread
            failures.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    removed: list[str] = []
    while not stop.is_set():
        for mark in (attune_home / "datasets" / "content").glob(f"*/{UNUSED}"):
            age(mark, 2 * HOUR)
        removed += sweep().removed
    writer.join()

    assert not failures
    assert removed
    assert store.read_index(store.describe("moving").fingerprint).num_rows
