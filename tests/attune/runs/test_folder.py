import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attune.errors import RunError, RunExists, RunNotFound
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun

pytestmark = pytest.mark.usefixtures("attune_home")


def create(name: str = "first", **fields: object) -> RunFolder:
    return RunFolder.create(FinetuningRun(name=name, **fields))


def test_a_new_run_is_in_its_folder_with_what_it_was_made_with() -> None:
    folder = create(settings={"model": "starter", "epochs": 3}, description="a try")

    run = RunFolder.open("first").load()
    assert (run.name, run.state, run.description, run.settings["epochs"]) == ("first", "CREATED", "a try", 3)
    assert run.created_at.endswith("+00:00")
    assert sorted(path.name for path in folder.path.iterdir()) == [".reserve", "environment.json", "run.json"]
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["cores"] >= 1


@pytest.mark.parametrize(("field", "most"), [("description", 10_000), ("request", 200)])
def test_what_a_run_is_told_of_itself_is_bounded(field: str, most: int) -> None:
    create(**{field: "x" * most})
    with pytest.raises(RunError, match=f"{field} has {most + 1:,} characters, and {most:,} is the most"):
        create("second", **{field: "x" * (most + 1)})


def test_a_name_is_used_once() -> None:
    create(description="mine")

    with pytest.raises(RunExists, match=r"A run named 'first' exists already\. Choose another name"):
        create(description="yours")
    assert RunFolder.open("first").load().description == "mine"


def test_a_name_is_used_once_in_each_experiment() -> None:
    one, other = create(), create(experiment="other")

    assert (one.reference, other.reference) == ("first", "other/first")
    assert (one.path.parts[-3:], other.path.parts[-3:]) == (("runs", "default", "first"), ("runs", "other", "first"))
    assert RunFolder.open("other/first").path == other.path
    assert RunFolder.open("default/first").path == RunFolder.open("first").path == one.path
    assert (other.load().experiment, other.load().reference) == ("other", "other/first")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "..", "x" * 101, "null\0", "line\n"])
def test_a_name_that_is_no_folder_name_is_refused(name: str, attune_home: Path) -> None:
    with pytest.raises(RunError, match=r"run_name = .* is not a valid name"):
        create(name)
    with pytest.raises(RunError, match=r"experiment_name = .* is not a valid name"):
        create("fine", experiment=name)
    assert not attune_home.exists()


UNKNOWN = ["", "second", "..", "../runs/first", "first/../first", "default/../default/first", "/first", "default//first"]


@pytest.mark.parametrize("name", [*UNKNOWN, "default/default/first", "other/first", "default/", "null\0", "x" * 300])
def test_an_unknown_run_is_answered_with_the_known_ones(name: str) -> None:
    create()
    create("third", experiment="more")

    with pytest.raises(RunNotFound, match=r"(?s)There is no run named .*Runs: first, more/third"):
        RunFolder.open(name)


def test_of_many_runs_the_near_one_is_named_and_some_others() -> None:
    for number in range(30):
        create(f"keen-birch-{number}")

    with pytest.raises(RunNotFound, match=r"named 'ken-birch-7' \(did you mean 'keen-birch-7'\?\)\. Runs: .* and 10 more$"):
        RunFolder.open("ken-birch-7")


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_link_out_of_the_workspace_is_no_run(what: str, attune_home: Path, tmp_path: Path) -> None:
    inside = create("inside", experiment="inner").path
    outside = tmp_path / "outside"
    inside.parent.rename(outside)
    link = attune_home / "runs" / "inner"
    if what == "experiment":
        link.symlink_to(outside)
    else:
        link.mkdir()
        (link / "inside").symlink_to(outside / "inside")

    with pytest.raises(RunNotFound, match=r"There is no run named 'inner/inside'\. Runs: none yet"):
        RunFolder.open("inner/inside")


def test_a_damaged_run_says_so() -> None:
    folder = create()
    (folder.path / "run.json").write_text('{"name": "fir')

    with pytest.raises(RunError, match=r"Run 'first' cannot be read: .*run\.json is damaged"):
        folder.load()


def test_says_so_if_there_are_no_runs() -> None:
    with pytest.raises(RunNotFound, match="none yet"):
        RunFolder.open("first")


def test_what_is_told_of_a_run_is_not_kept() -> None:
    folder = create()

    folder.update(lambda run: setattr(run, "position", 3))
    folder.set_state("TRAINING", progress={"step": 3.0})

    assert (folder.load().position, folder.load().progress) == (0, {})


def test_a_change_of_state_is_in_the_history_once() -> None:
    folder = create()

    for state in ("VALIDATING", "VALIDATING", "TRAINING"):
        folder.set_state(state)

    assert folder.load().state == "TRAINING"
    assert [(event.kind, event.message) for event in folder.events()] == [
        ("state", "state VALIDATING"),
        ("state", "state TRAINING"),
    ]


def test_a_state_is_told_before_it_is_kept_and_once_by_a_process_that_was_killed_in_between() -> None:
    folder = create()
    folder.log("state TRAINING", kind="state")  # and there it ended

    folder.set_state("TRAINING")
    folder.set_state("TRAINING", stage_started={"train": "now"})

    assert [event.message for event in folder.events()] == ["state TRAINING"]
    assert folder.load().stage_started == {"train": "now"}


def test_progress_is_told_while_a_stage_is_at_work() -> None:
    folder = create()
    assert folder.look().progress == {}
    folder.set_state("TRAINING")
    folder.log("", kind="progress", step=3, steps=9, loss=1.5)
    assert folder.look().progress == {"step": 3.0, "steps": 9.0, "loss": 1.5}
    folder.log("", kind="progress", step=9, steps=9, loss=0.5)
    folder.set_state("CANCELLED")
    assert folder.look().progress == {}


def test_events_are_numbered_and_read_from_any_point() -> None:
    folder = create()
    for number in range(1, 8):
        folder.log(f"message {number}", kind="progress", step=number, loss=float("nan"))

    assert [event.number for event in folder.events()] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.message for event in folder.events(after=5)] == ["message 6", "message 7"]
    assert [event.number for event in folder.events(after=2, limit=3)] == [3, 4, 5]
    assert list(folder.events(after=7)) == []
    first = next(folder.events())
    assert (first.kind, first.values) == ("progress", {"step": 1.0})  # JSON has no NaN: it is left out


def test_a_line_that_is_still_being_written_is_not_there_yet() -> None:
    folder = create()
    folder.log("whole")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"time": "2024", "kind": "log", "mess')
        file.flush()
        assert [event.message for event in folder.events()] == ["whole"]
        file.write('age": "now whole", "values": {}}\n')

    assert [event.message for event in folder.events()] == ["whole", "now whole"]


def test_line_breaks_in_a_message_stay_in_one_event() -> None:
    folder = create()
    message = "first\nsecond\u2028third\x85fourth\rfifth é"

    folder.log(message)
    folder.log("next")

    assert [event.message for event in folder.events()] == [message, "next"]


def test_several_processes_lose_no_event_and_no_change_of_each_other() -> None:
    folder = create()
    code = (
        "import sys\n"
        "from attune.runs.folder import RunFolder\n"
        "folder = RunFolder.open('first')\n"
        "for number in range(40):\n"
        "    folder.log(f'{sys.argv[1]}:{number} ' + 'x' * 300, step=number)\n"
        "    folder.update(lambda run: run.stage_seconds.update({f'{sys.argv[1]}:{number}': 1.0}))"
    )
    started = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(number)]) for number in range(3)]
    while any(process.poll() is None for process in started):
        assert folder.load().name == "first"  # a reader sees a whole run at any moment
        time.sleep(0.002)
    assert [process.wait() for process in started] == [0, 0, 0]

    wanted = [f"{process}:{number}" for process in range(3) for number in range(40)]
    found = [event.message.split()[0] for event in folder.events()]
    assert sorted(found) == sorted(wanted)
    for process in range(3):  # and each process's own are in order
        assert [name for name in found if name.startswith(f"{process}:")] == wanted[40 * process : 40 * process + 40]
    assert sorted(folder.load().stage_seconds) == sorted(wanted)
    assert not [path.name for path in folder.path.iterdir() if path.name.startswith(".run.json")]


def test_a_change_that_fails_leaves_the_run_as_it_was() -> None:
    folder = create()

    def change(run: FinetuningRun) -> None:
        run.state = "FAILED"
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        folder.update(change)
    assert folder.load().state == "CREATED"
    assert folder.set_state("TRAINING").state == "TRAINING"  # and the lock is free
