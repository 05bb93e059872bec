import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attune.errors import RunError, RunExists, RunNotFound
from attune.files import sha256
from attune.runs import CHUNK_BYTES, RunFolder, all_runs, read_chunk
from attune.schemas import FileChunk, FinetuningRun

pytestmark = pytest.mark.usefixtures("attune_home")


def create(name: str = "first", **fields: object) -> RunFolder:
    return RunFolder.create(FinetuningRun(name=name, **fields))


def test_a_new_run_is_in_its_folder_with_what_it_was_made_with() -> None:
    folder = create(settings={"model": "starter", "epochs": 3}, description="a try")

    run = RunFolder.open("first").load()
    assert (run.name, run.state, run.description, run.settings["epochs"]) == ("first", "CREATED", "a try", 3)
    assert run.created_at.endswith("+00:00")
    assert sorted(path.name for path in folder.path.iterdir()) == ["environment.json", "run.json"]
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["cores"] >= 1


def test_a_name_is_used_once() -> None:
    create(description="mine")

    with pytest.raises(RunExists, match=r"A run named 'first' exists already\. Choose another run_name"):
        create(description="yours")
    assert RunFolder.open("first").load().description == "mine"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(RunError, match=r"run_name = .* is not a valid name"):
        create(name)


@pytest.mark.parametrize("name", ["", "second", "..", "../runs/first", "first/../first", "x" * 300])
def test_an_unknown_run_is_answered_with_the_known_ones(name: str) -> None:
    create()
    create("third")

    with pytest.raises(RunNotFound, match=r"There is no run named .*Runs: first, third"):
        RunFolder.open(name)


def test_says_so_if_there_are_no_runs() -> None:
    assert all_runs() == []
    with pytest.raises(RunNotFound, match="none yet"):
        RunFolder.open("first")


def test_opens_a_run_that_is_there_and_creates_one_that_is_not() -> None:
    RunFolder.open_or_create(FinetuningRun(name="first", description="one"))
    RunFolder.open_or_create(FinetuningRun(name="first", description="two"))

    assert RunFolder.open("first").load().description == "one"


def test_runs_are_listed_newest_first() -> None:
    for name, moment in (("b", "2024-01-02"), ("c", "2024-01-01"), ("a", "2024-01-03")):
        create(name).update(lambda run, moment=moment: setattr(run, "created_at", moment))

    assert [folder.path.name for folder in all_runs()] == ["a", "b", "c"]


def test_a_change_of_state_is_in_the_history_once() -> None:
    folder = create()

    for state in ("VALIDATING", "VALIDATING", "TRAINING"):
        folder.set_state(state)

    assert folder.load().state == "TRAINING"
    assert [(event.kind, event.message) for event in folder.events()] == [
        ("state", "state VALIDATING"),
        ("state", "state TRAINING"),
    ]


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
        "from attune.runs import RunFolder\n"
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


def test_a_file_comes_in_pieces_that_add_up() -> None:
    folder = create()
    data = bytes(range(256)) * 20_000  # 5.12 MB: more than one piece
    (folder.path / "artifact").mkdir()
    (folder.path / "artifact" / "weights").write_bytes(data)

    received, pieces, total = b"", 0, 1
    while len(received) < total:
        piece = read_chunk(FileChunk(run="first", path="artifact/weights", offset=len(received)))
        assert piece.sha256 == (sha256(folder.path / "artifact" / "weights") if not received else "")
        received, pieces, total = received + piece.data, pieces + 1, piece.total

    assert received == data
    assert pieces == -(-len(data) // CHUNK_BYTES) == 2
    assert read_chunk(FileChunk(run="first", path="artifact/weights", offset=len(data))).data == b""


@pytest.mark.parametrize(
    "path",
    ["../second/run.json", "../../secret", "/etc/passwd", "absent", "", ".", "link", "artifact/../../second/run.json"],
)
def test_a_piece_cannot_come_from_outside_the_run(path: str, attune_home: Path) -> None:
    folder = create()
    create("second")
    (attune_home / "secret").write_text("secret")
    (folder.path / "link").symlink_to(attune_home / "secret")

    with pytest.raises(RunError, match="Run 'first' has no file"):
        read_chunk(FileChunk(run="first", path=path))


@pytest.mark.parametrize("name", ["", "..", "absent", "../runs/first"])
def test_a_piece_of_an_unknown_run_is_refused(name: str) -> None:
    create()

    with pytest.raises(RunNotFound, match="There is no run named"):
        read_chunk(FileChunk(run=name, path="run.json"))
