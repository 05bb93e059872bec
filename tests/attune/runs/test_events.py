import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attune.runs.events import (
    EVENTS,
    TAIL_BYTES,
    append_event,
    events_from,
    history_size,
    last_events,
    progress,
    read_events,
)


def write(folder: Path, count: int, start: int = 1) -> None:
    lines = [
        json.dumps({"time": "t", "kind": "log", "message": f"message {number}", "values": {}})
        for number in range(start, start + count)
    ]
    with (folder / "events.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")


def numbered(folder: Path, after: int = 0, limit: int | None = None) -> list[tuple[int, str]]:
    return [(event.number, event.message) for event in read_events(folder, after, limit)]


def say(folder: Path, message: str, kind: str = "log", **values: float) -> None:
    append_event(folder, {"time": "t", "kind": kind, "message": message, "values": values})


def test_there_is_no_history_before_the_first_event(tmp_path: Path) -> None:
    assert numbered(tmp_path) == []
    assert (list(last_events(tmp_path)), progress(tmp_path), history_size(tmp_path)) == ([], {}, 0)


def test_an_event_after_half_a_line_is_whole_and_numbers_stay(tmp_path: Path) -> None:
    say(tmp_path, "one")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": "2024", "kind": "log", "mess')  # its process was killed
    assert numbered(tmp_path) == [(1, "one")]

    say(tmp_path, "three")
    say(tmp_path, "four")

    assert numbered(tmp_path) == [(1, "one"), (3, "three"), (4, "four")]
    assert numbered(tmp_path, after=2) == [(3, "three"), (4, "four")]


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b"null", b'"text"', b"\xff\xfe", b"{}}", b'{"number": 7, "message": "x"}', b'{"values": 3}']
)
def test_a_line_that_cannot_be_read_keeps_its_number(tmp_path: Path, line: bytes) -> None:
    say(tmp_path, "one")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(line + b"\n")
    say(tmp_path, "three")

    assert numbered(tmp_path) == [(1, "one"), (3, "three")]
    assert numbered(tmp_path, limit=2) == [(1, "one"), (3, "three")]  # a page is full of events, not of lines
    assert [event.message for event in last_events(tmp_path)] == ["three", "one"]


@pytest.mark.parametrize("after", [0, 1, 4998, 4999, 5000, 5001, 10_000_000_000])
def test_reading_starts_after_any_number(tmp_path: Path, after: int) -> None:
    write(tmp_path, 5000)  # of half a megabyte

    assert numbered(tmp_path, after) == [(number, f"message {number}") for number in range(after + 1, 5001)]
    assert numbered(tmp_path, after, 3) == numbered(tmp_path, after)[:3]


def test_reading_far_into_a_long_history_is_quick(tmp_path: Path) -> None:
    write(tmp_path, 300_000)  # a run of three days, more than 20 MB and several blocks
    start = time.process_time()
    for after in (299_998, 150_000, 299_999):
        assert numbered(tmp_path, after, 1) == [(after + 1, f"message {after + 1}")]
    assert time.process_time() - start < 0.5


def test_progress_is_the_newest_of_each_number_since_the_stage_began(tmp_path: Path) -> None:
    say(tmp_path, "state TRAINING", kind="state")
    assert progress(tmp_path) == {}
    say(tmp_path, "", kind="progress", step=1, steps=9, loss=3.0, pairs_per_second=10.0, seconds_left=8.0, epoch=1)
    say(tmp_path, "", kind="validation", epoch=1, loss=2.5, mean_recall=0.25)
    say(tmp_path, "", kind="choice", mean_recall=0.9)
    say(tmp_path, "", kind="progress", step=2, steps=9, pairs_per_second=11.0, seconds_left=7.0)

    assert progress(tmp_path) == {
        "step": 2, "steps": 9, "loss": 3.0, "pairs_per_second": 11.0, "seconds_left": 7.0, "mean_recall": 0.25
    }  # fmt: skip
    say(tmp_path, "state EVALUATING", kind="state")
    assert progress(tmp_path) == {}


def test_progress_reads_the_end_of_a_long_history_only(tmp_path: Path) -> None:
    write(tmp_path, 300_000)
    say(tmp_path, "", kind="progress", step=7, steps=9)
    start = time.process_time()

    assert progress(tmp_path) == {"step": 7, "steps": 9}
    assert 100 < len(list(last_events(tmp_path))) <= TAIL_BYTES // 60
    assert time.process_time() - start < 0.5


def test_events_are_read_from_where_the_history_ended(tmp_path: Path) -> None:
    say(tmp_path, "one")
    size = history_size(tmp_path)
    say(tmp_path, "two")

    assert [event.message for event in events_from(tmp_path, size)] == ["two"]


def test_an_event_that_the_disk_does_not_hold_is_an_error_and_the_next_one_is_whole(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from attune.runs.events import append_event\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))\n"
        "for number in range(9):\n"
        "    append_event(Path(sys.argv[1]), {'time': 't', 'kind': 'log', 'message': f'{number}' * 20, 'values': {}})"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "OSError" in ended.stderr
    assert history_size(tmp_path) == 150  # the second or third line is there in part

    whole = numbered(tmp_path)
    say(tmp_path, "after")
    assert numbered(tmp_path) == [*whole, (len(whole) + 2, "after")]


def test_processes_that_are_killed_while_they_write_cost_no_others_line(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from attune.runs.events import append_event\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    event = {'time': 't', 'kind': 'log', 'message': f'{sys.argv[2]}:{number}', 'values': {'x': number}}\n"
        "    append_event(Path(sys.argv[1]), event)\n"
        "    time.sleep(0.001)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    victims = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    try:
        for number, process in enumerate(victims):
            deadline = time.monotonic() + 300
            while not any(event.message.startswith(f"{number}:") for event in last_events(tmp_path)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for own in range(50):
                say(tmp_path, f"own:{number}:{own}")
            os.kill(process.pid, signal.SIGKILL)
    finally:
        for process in victims:
            process.kill()
            process.wait()

    found = [event.message for event in read_events(tmp_path)]
    wanted = [f"own:{number}:{own}" for number in range(3) for own in range(50)]
    assert [message for message in found if message.startswith("own")] == wanted
    for number in range(3):
        of_victim = [int(message.split(":")[1]) for message in found if message.startswith(f"{number}:")]
        assert of_victim == list(range(1, len(of_victim) + 1))


def test_who_follows_a_long_history_reads_on_from_where_it_was(tmp_path: Path) -> None:
    with (tmp_path / EVENTS).open("wb") as file:
        file.writelines(b'{"message": "line %d"}\n' % number for number in range(1, 200_001))
    assert [event.number for event in read_events(tmp_path, 199_999)] == [200_000]
    append_event(tmp_path, {"message": "more"})

    start = time.process_time()
    for _ in range(100):
        assert [event.message for event in read_events(tmp_path, 200_000)] == ["more"]
    assert (time.process_time() - start) / 100 < 0.005  # to count the lines before it takes several times as long


def test_another_history_in_the_same_place_is_read_from_its_own_beginning(tmp_path: Path) -> None:
    for began in ("one", "two"):
        lines = [{"message": f"{began} {'x' * 80}"}, {"message": began * (4 if began == "one" else 1)}, {"message": "last"}]
        (tmp_path / EVENTS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        assert [event.number for event in read_events(tmp_path, 1)] == [2, 3]
        assert [event.message for event in read_events(tmp_path, 2)] == ["last"]
