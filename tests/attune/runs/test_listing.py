import time
from pathlib import Path

import pytest

from attune.errors import RunNotFound
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import delete
from attune.runs.listing import find_experiments, find_runs, listed_runs
from attune.schemas import FinetuningRun, RunQuery

pytestmark = pytest.mark.usefixtures("attune_home")


def create(name: str, moment: str = "", state: str = "CREATED", experiment: str = "default") -> RunFolder:
    folder = RunFolder.create(FinetuningRun(name=name, experiment=experiment, settings={"model": "starter"}))
    folder.set_state(state, created_at=moment or folder.load().created_at)
    return folder


def found(**query: object) -> list[str]:
    return [run.reference for run in find_runs(RunQuery(**query))]


def test_runs_are_listed_newest_first_over_all_experiments() -> None:
    assert listed_runs() == []
    create("b", "2024-01-02", experiment="other")
    create("c", "2024-01-01")
    create("a", "2024-01-03")

    assert found() == ["a", "other/b", "c"]


def test_runs_are_filtered_by_experiment_state_and_part_of_the_name() -> None:
    create("emoji-1", "2024-01-01", "FINISHED")
    create("Emoji-2", "2024-01-02", "FAILED")
    create("emoji-3", "2024-01-03", "CANCELLED", experiment="other")
    create("photos", "2024-01-04", "FINISHED", experiment="other")

    assert found(name="emoji") == ["other/emoji-3", "Emoji-2", "emoji-1"]
    assert found(experiment="other") == ["other/photos", "other/emoji-3"]
    assert found(states=["FAILED", "CANCELLED"]) == ["other/emoji-3", "Emoji-2"]
    assert found(experiment="other", states=["FINISHED"], name="o") == ["other/photos"]
    assert found(experiment="others") == found(states=["TRAINING"]) == found(name="x") == []


def test_a_change_is_seen_at_once() -> None:
    folder = create("a")
    assert found(states=["FAILED"]) == []
    folder.set_state("FAILED")
    assert found(states=["FAILED"]) == ["a"]


def test_pages_show_every_run_once_while_runs_are_added() -> None:
    for number in range(7):
        create(f"run-{number}", f"2024-01-0{number + 1}")
    create("twin-a", "2024-01-03")  # of the same moment as another
    create("twin-b", "2024-01-03")
    everything = found()

    seen: list[str] = []
    while page := found(limit=2, after_run=seen[-1] if seen else ""):
        assert len(page) == 2 or len(seen) == 8
        seen += page
        create(f"new-{len(seen)}")
    assert seen == everything
    assert len(seen) == 9


def test_the_page_after_a_deleted_run_says_so() -> None:
    create("a")
    delete(create("gone"))

    with pytest.raises(RunNotFound, match="There is no run named 'gone'"):
        found(after_run="gone")


def test_drafts_links_and_damaged_runs_are_no_runs(attune_home: Path, tmp_path: Path) -> None:
    folder = create("a")
    runs = attune_home / "runs"
    (runs / "default" / ".draft.1234").mkdir()
    (runs / "default" / ".draft.1234" / "run.json").write_text((folder.path / "run.json").read_text())
    (runs / "default" / "empty").mkdir()
    (runs / "default" / "link").symlink_to(folder.path)
    (runs / "default" / "file").write_text("")
    create("damaged").path.joinpath("run.json").write_text("{")

    assert found() == ["a"]


def test_experiments_are_those_that_have_runs() -> None:
    assert find_experiments(RunQuery()) == []
    create("a", "2024-01-01", "FINISHED", "one")
    create("b", "2024-01-05", "FINISHED", "one")
    create("c", "2024-01-03", "FAILED", "one")
    create("d", "2024-01-04", "FAILED", "two")
    delete(create("gone", experiment="three"))

    told = [(one.name, one.runs, one.states, one.created_at) for one in find_experiments(RunQuery())]
    assert told == [
        ("one", 3, {"FINISHED": 2, "FAILED": 1}, "2024-01-01"),
        ("two", 1, {"FAILED": 1}, "2024-01-04"),
    ]
    assert [one.name for one in find_experiments(RunQuery(experiment="two"))] == ["two"]


def test_two_thousand_runs_are_listed_in_a_moment(attune_home: Path) -> None:
    text = (create("run").path / "run.json").read_text()
    for number in range(2000):
        folder = attune_home / "runs" / "many" / f"run-{number}"
        folder.mkdir(parents=True)
        changed = text.replace('"name": "run"', f'"name": "run-{number}"').replace('"default"', '"many"')
        (folder / "run.json").write_text(changed)
    assert len(found(experiment="many", limit=10_000)) == 2000  # every run is read, once

    start = time.process_time()
    assert len(found(experiment="many", limit=100)) == 100
    assert time.process_time() - start < 0.5
