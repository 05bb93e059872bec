import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attune.config import check_settings
from attune.errors import DataError, RunCancelled, RunError, RunExists, RunFailed, RunNotFound, StorageFull
from attune.runs import life_cycle
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import (
    cancel,
    delete,
    end_cancelled,
    end_failed,
    fail,
    last_attempt,
    posted,
    resume,
    retry,
    submit,
    tidy,
)
from attune.runs.listing import find_runs
from attune.schemas import STATES, FinetuningRun, RunQuery, TrainingResult
from attune.stages import run_stage
from tests.attune.runs.made import create
from tests.chaos.faults import can_fill, fill
from tests.processes import is_alive

pytestmark = pytest.mark.usefixtures("attune_home")


def said(folder: RunFolder) -> list[str]:
    return [event.message for event in folder.events()]


def test_a_waiting_run_is_cancelled_at_once() -> None:
    folder = create()

    run = cancel(folder)

    assert (run.state, bool(run.finished_at), run.error) == ("CANCELLED", True, "")
    assert said(folder) == ["asked to cancel", "state CANCELLED"]
    assert cancel(folder).state == "CANCELLED"  # the same request, come twice
    assert said(folder) == ["asked to cancel", "state CANCELLED"]
    assert not folder.cancel_mark.exists()


@pytest.mark.parametrize("state", ["FINISHED", "FAILED"])
def test_a_run_at_an_end_is_not_cancelled(state: str) -> None:
    folder = create(state=state)

    with pytest.raises(RunError, match=f"Run 'first' cannot be cancelled: it is {state}"):
        cancel(folder)
    assert not folder.cancel_mark.exists()


def test_a_run_at_work_is_cancelled_once_nobody_works_on_it() -> None:
    folder = create(state="TRAINING")

    with folder.locked("stage"):
        assert cancel(folder).state == "TRAINING"
        assert cancel(folder).state == "TRAINING"
        end_cancelled(folder)
        assert folder.load().state == "TRAINING"
    end_cancelled(folder)

    assert folder.load().state == "CANCELLED"
    assert said(folder)[1:] == ["asked to cancel", "state CANCELLED"]


def test_a_run_that_ends_while_it_is_to_be_cancelled_stays_at_that_end() -> None:
    folder = create(state="EXPORTING")

    with folder.locked("stage"):
        cancel(folder)
        folder.set_state("FINISHED")
    end_cancelled(folder)

    assert folder.load().state == "FINISHED"
    assert not folder.cancel_mark.exists()


def test_what_the_cancelling_breaks_is_no_failure() -> None:
    folder = create(state="TRAINING")
    with folder.locked("stage"):
        cancel(folder)
        fail(folder, "a process was lost")

    assert folder.load().error == ""
    end_cancelled(folder)
    fail(folder, "too late")
    assert (folder.load().state, folder.load().error) == ("CANCELLED", "")


@pytest.mark.parametrize("stage", ["validate", "train", "evaluate", "export"])
def test_no_stage_begins_of_a_run_that_was_cancelled_or_failed(stage: str) -> None:
    settings = {"train_data": "shapes", "model": "starter"}
    for name, state in (("cancelled", "CANCELLED"), ("failed", "FAILED")):
        create(name, state, settings=settings)
    marked = create("marked", settings=settings)
    marked.cancel_mark.touch()

    with pytest.raises(RunCancelled, match="Run 'cancelled' was cancelled. Resume it"):
        run_stage(stage, "cancelled")
    with pytest.raises(RunFailed, match="Run 'failed' failed: no data"):
        run_stage(stage, "failed")
    with pytest.raises(RunCancelled):
        run_stage(stage, "marked")
    assert (marked.load().state, marked.load().stage_started) == ("CREATED", {})


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_resumed_run_keeps_all_it_has(state: str) -> None:
    folder = create(state=state)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.pt").write_text("weights")
    folder.update(lambda run: setattr(run, "training", TrainingResult(steps=3)))
    before = folder.load()

    run = resume(folder)

    assert (run.state, run.error, run.finished_at, run.training.steps) == ("CREATED", "", "", 3)
    assert run.created_at == before.created_at
    assert run.queued_at >= before.finished_at
    assert (folder.checkpoints / "last.pt").exists()
    assert said(folder)[-1] == "resumed: goes on from its last checkpoint"
    life_cycle.check_goes_on(folder)


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_is_tried_again_has_only_its_history(state: str) -> None:
    folder = create(state=state, settings={"epochs": 3}, description="mine", request="key")
    for name in ("checkpoints", "report", "artifact", ".artifact"):
        (folder.path / name).mkdir()
        (folder.path / name / "file").write_text("x")
    folder.update(lambda run: setattr(run, "training", TrainingResult(steps=3, device="cpu")))
    folder.update(lambda run: setattr(run, "train_fingerprint", "abc"))
    history, before = said(folder), folder.load()

    run = retry(folder)

    assert run.model_dump(exclude={"id", "training", "evaluation", "artifact"}) == {
        **before.model_dump(exclude={"id", "training", "evaluation", "artifact"}),
        "state": "CREATED",
        "error": "",
        "finished_at": "",
        "train_fingerprint": "",
        "queued_at": run.queued_at,
    }
    assert (run.training.steps, run.training.device) == (0, "")
    assert said(folder) == [*history, "tried again from the beginning: earlier results and checkpoints are removed"]
    left = {path.name for path in folder.path.iterdir()}
    assert left == {"run.json", "environment.json", "events.jsonl", ".run.lock", ".stage.lock", ".reserve"}


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("FAILED", "CANCELLED")])
@pytest.mark.parametrize(("change", "word"), [(resume, "resumed"), (retry, "tried again")])
def test_only_a_run_that_did_not_get_to_its_end_goes_on(state: str, change: object, word: str) -> None:
    folder = create(state=state)

    message = f"Run 'first' cannot be {word}: it is {state}. Only FAILED or CANCELLED runs can"
    with pytest.raises(RunError, match=message):
        change(folder)  # type: ignore[operator]
    assert folder.load().state == state


@pytest.mark.parametrize("change", [resume, retry, delete])
def test_nothing_is_changed_under_the_hands_of_a_process(change: object) -> None:
    folder = create(state="FAILED")

    with folder.locked("stage"), pytest.raises(RunError, match="a process is still at work on it"):
        change(folder)  # type: ignore[operator]
    assert folder.load().state == "FAILED"


@pytest.mark.parametrize("state", STATES)
def test_a_run_is_deleted_unless_it_is_at_work(state: str, attune_home: Path) -> None:
    folder, other = create(state=state, experiment="one"), create("second", experiment="one")

    if state in ("CREATED", "FINISHED", "FAILED", "CANCELLED"):
        assert delete(folder).state == state
        assert [path.name for path in other.path.parent.iterdir()] == ["second"]
        with pytest.raises(RunNotFound):
            RunFolder.open("one/first")
        delete(other)
        assert list((attune_home / "runs").iterdir()) == []
    else:
        with pytest.raises(RunError, match=f"cannot be deleted: it is {state}"):
            delete(folder)
        assert folder.load().state == state


def test_who_waits_for_a_run_that_is_deleted_finds_none() -> None:
    folder = create()
    delete(folder)

    with pytest.raises(RunNotFound, match="'first' any more: it was deleted"):
        folder.load()
    assert not folder.path.exists()


def test_the_same_request_makes_one_run() -> None:
    request = FinetuningRun(name="first", request="key-1")
    made = submit(request)

    assert submit(FinetuningRun(name="first", request="key-1", description="again")).load() == made.load()
    for other in ("key-2", ""):
        with pytest.raises(RunExists):
            submit(FinetuningRun(name="first", request=other))
    assert submit(FinetuningRun(name="first", experiment="other", request="key-1")).reference == "other/first"
    create("unnamed")
    with pytest.raises(RunExists):  # two requests without a key are two requests
        submit(FinetuningRun(name="unnamed"))


def old_layout(runs: Path, name: str, experiment: str) -> None:
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").write_text(name)
    (folder / "events.jsonl").write_text("")
    (folder / "run.json").write_text(json.dumps({"name": name, "experiment": experiment, "created_at": "2024-01-01"}))


def test_runs_of_the_layout_before_experiments_are_moved_once(attune_home: Path) -> None:
    runs = attune_home / "runs"
    old_layout(runs, "one", "default")
    old_layout(runs, "default", "default")
    old_layout(runs, "nightly", "my experiment!")
    old_layout(runs, "two", "nightly")
    (runs / ".moved.three").mkdir()  # killed in the middle of it
    old_layout(runs / ".moved.three", "three", "nightly")
    for path in (runs / ".moved.three" / "three").iterdir():
        path.rename(runs / ".moved.three" / path.name)
    (runs / ".moved.three" / "three").rmdir()
    kept = create("new", experiment="run.json")  # a name like any other

    for _ in range(2):
        tidy()
        found = {run.reference for run in find_runs(RunQuery())}
        assert found == {"one", "default", "nightly", "nightly/two", "nightly/three", kept.reference}
    assert (RunFolder.open("nightly/three").checkpoints / "last.pt").read_text() == "three"
    assert RunFolder.open("nightly").load().experiment == "default"
    assert sorted(path.name for path in runs.iterdir()) == ["default", "nightly", "run.json"]


def test_what_killed_processes_left_is_removed(attune_home: Path) -> None:
    folder = create()
    for path in (
        folder.path.parent / ".draft.12ab",
        folder.path.parent / ".removed.x.12ab",
        folder.path / ".removed.y.12ab",
    ):
        path.mkdir()
        (path / "file").write_text("x")
    before = {path.name for path in folder.path.iterdir()} - {".removed.y.12ab"}

    tidy()

    assert [path.name for path in folder.path.parent.iterdir()] == ["first"]
    assert {path.name for path in folder.path.iterdir()} == before


def wait_until(condition: object, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_waits_for_a_cancelled_run_ends_though_nobody_watches_it() -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter"})
    with folder.locked("stage"):
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "attune", "validate", "first"])
        try:
            time.sleep(1)
            assert process.poll() is None
            assert cancel(folder).state == "CREATED"
            wait_until(lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -15
    end_cancelled(folder)
    assert folder.load().state == "CANCELLED"


def test_a_stage_does_not_wait_for_a_later_one() -> None:
    folder = create(state="TRAINING", settings={"train_data": "shapes"})
    folder.update(lambda run: setattr(run, "train_fingerprint", "abc"))

    with folder.locked("stage"):
        assert run_stage("validate", "first").state == "TRAINING"


def test_a_run_is_made_when_it_first_comes_to_the_stages_and_found_when_it_comes_again() -> None:
    asked = {"model": "starter", "train_data": "shapes", "epochs": 3}
    made = posted(FinetuningRun(name="first", settings=asked, description="one"))
    complete = check_settings(asked).model_dump(mode="json")
    for settings in (asked, complete):
        made.update(lambda run, settings=settings: setattr(run, "settings", settings))  # as it is once it is validated
        again = posted(FinetuningRun(name="first", settings=asked, description="two"))
        assert again.load().description == "one"
    assert posted(made.load()).path == made.path


@pytest.mark.parametrize("change", [{"epochs": 4}, {"model": "other"}, {"train_data": "more"}, {"loss": "SigLIPLoss"}])
def test_a_runs_figures_are_no_answer_to_other_settings(change: dict[str, object]) -> None:
    asked = {"model": "starter", "train_data": "shapes", "epochs": 3}
    posted(FinetuningRun(name="first", settings=asked))

    for settings in ({**asked, **change}, {"model": "starter", "train_data": "shapes"}):
        with pytest.raises(RunExists, match="A run named 'first' exists already"):
            posted(FinetuningRun(name="first", settings=settings))


def test_a_request_that_is_delivered_twice_at_once_makes_one_run() -> None:
    runs = [FinetuningRun(name="first", settings={"model": "starter", "train_data": "shapes"}) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(posted, runs))
    assert len({folder.load().created_at for folder in folders}) == 1
    assert [path.name for path in folders[0].path.parent.iterdir()] == ["first"]


def test_a_late_request_does_not_make_a_deleted_run_again() -> None:
    known = create().load()
    delete(RunFolder.open("first"))

    with pytest.raises(RunNotFound):
        posted(known)


def test_a_run_does_not_fail_under_the_hands_of_a_process() -> None:
    folder = create(state="TRAINING")
    with folder.locked("stage"):
        end_failed(folder, "one of two was killed")
    assert (folder.load().state, folder.load().error) == ("TRAINING", "")

    end_failed(folder, "the other as well")
    assert (folder.load().state, folder.load().error) == ("FAILED", "the other as well")


def test_the_last_attempt_begins_where_the_run_was_last_tried_again() -> None:
    folder = create()
    assert last_attempt(folder) == []
    for attempt in ("one", "two", "three"):
        folder.log(attempt)
        assert [event.message for event in last_attempt(folder)] == [attempt]
        fail(folder, "no data")
        assert [event.message for event in last_attempt(folder)] == [attempt, "FAILED: no data"]
        retry(folder)
    assert last_attempt(folder) == []


@pytest.mark.parametrize(
    ("stage", "fingerprint", "before"),
    [
        ("train", "", "validate"),
        ("evaluate", "", "validate"),
        ("export", "", "validate"),
        ("evaluate", "abc", "train"),
        ("export", "abc", "train"),
    ],
)
def test_a_stage_whose_turn_it_is_not_changes_nothing(stage: str, fingerprint: str, before: str) -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter"})
    untouched = folder.update(lambda run: setattr(run, "train_fingerprint", fingerprint))

    with pytest.raises(RunError, match=f"'first' is CREATED: {before} has to be done before {stage}. Post it to /{before} "):
        run_stage(stage, "first")
    assert folder.load() == untouched
    assert said(folder) == []


def test_what_ends_a_stage_unexpectedly_is_said_before_another_may_try() -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter", "devices": "cpu"})
    folder.checkpoints.mkdir()
    (folder.checkpoints / "chosen.safetensors").mkdir()  # no error that anybody foresaw
    result = TrainingResult(device="cpu")
    folder.update(lambda run: setattr(run, "training", result) or setattr(run, "train_fingerprint", "abc"))
    folder.update(lambda run: setattr(run.evaluation, "split_fingerprint", "abc"))

    with pytest.raises(OSError):
        run_stage("export", "first")
    assert folder.load().state == "FAILED"
    assert folder.load().error.startswith("export stopped unexpectedly: ")


def test_a_stage_of_data_that_is_gone_says_so() -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter", "devices": "cpu"})
    folder.update(lambda run: setattr(run, "train_fingerprint", "0123456789abcdef"))

    with pytest.raises(DataError, match="The data '0123456789ab' is not there: its dataset was deleted.*Push it again"):
        run_stage("train", "first")


def test_a_process_whose_launcher_is_gone_ends() -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter"})
    launcher_code = (
        "import os, subprocess, sys\n"
        "environment = {**os.environ, 'ATTUNE_LAUNCHER': str(os.getpid())}\n"
        "child = subprocess.Popen([sys.executable, '-W', 'ignore', '-m', 'attune', 'validate', 'first'], env=environment)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    with folder.locked("stage"):
        launcher = subprocess.Popen([sys.executable, "-c", launcher_code], stdout=subprocess.PIPE, text=True)
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        time.sleep(2)
        assert is_alive(child)
        launcher.kill()
        launcher.wait()
        wait_until(lambda: not is_alive(child), 120)
    launcher.stdout.close()


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 4 MB with ATTUNE_HOME on it."""
    disk = tmp_path / "disk"
    if not can_fill(disk, "4m"):
        pytest.skip("only root may mount a small disk")
    monkeypatch.setenv("ATTUNE_HOME", str(disk / "home"))
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_run_says_why_it_ended_even_where_the_disk_is_full(small_disk: Path) -> None:
    folder = create(settings={"train_data": "shapes", "model": "starter"})
    filler = small_disk / "filler"
    fill(filler)

    with pytest.raises(StorageFull, match="The disk is full: the run 'first' cannot go on.*then resume it"):
        run_stage("validate", "first")
    assert folder.load().state == "FAILED"
    assert folder.load().error.startswith("The disk is full")
    assert said(folder)[-1].startswith("FAILED: The disk is full")
    fill(filler)  # with what the run had in reserve
    with pytest.raises(StorageFull, match="The disk is full"):
        resume(folder)
    assert folder.load().state == "FAILED"

    filler.unlink()
    assert resume(folder).state == "CREATED"
    assert said(folder)[-1] == "resumed: goes on from its last checkpoint"
