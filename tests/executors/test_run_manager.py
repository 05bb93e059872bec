"""The RunManager's hold on runs, without a Flow around it: no gateway answers here."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from docarray import DocList

from attune.runs.folder import RunFolder
from attune.runs.life_cycle import delete
from attune.schemas import FinetuningRun, RunQuery
from executors.run_manager import executor
from executors.run_manager.driver import Driver
from executors.run_manager.executor import RunManager

pytestmark = pytest.mark.usefixtures("attune_home")
NOWHERE = "grpc://127.0.0.1:1"


def create(name: str, state: str = "CREATED") -> RunFolder:
    folder = RunFolder.create(FinetuningRun(name=name, settings={"model": "starter", "train_data": "shapes"}))
    if state != "CREATED":
        folder.set_state(state)
    return folder


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_run_that_is_gone_or_damaged_gives_its_place_to_the_next() -> None:
    gone, damaged, last = create("gone"), create("damaged"), create("last")

    async def drive() -> None:
        driver = Driver(NOWHERE, per_device=1)
        for folder in (gone, damaged, last):
            driver.add(folder.load())
        assert (list(driver.working), driver.positions()) == (["gone"], {"damaged": 1, "last": 2})
        delete(gone)
        await until(lambda: list(driver.working) == ["damaged"])
        (damaged.path / "run.json").write_text("{")
        await until(lambda: list(driver.working) == ["last"])
        driver.close()

    asyncio.run(drive())


def test_a_run_that_nobody_drives_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "TAKE_UP_SECONDS", 0.05)
    create("finished", "FINISHED")
    create("waiting")
    create("left", "TRAINING")  # by a service that was killed

    async def manage() -> None:
        manager = RunManager(gateway=NOWHERE)
        await until(lambda: list(manager.driver.working) == ["left"] and list(manager.driver.waiting) == ["waiting"])
        posted = create("posted", "VALIDATING")  # by somebody who has gone away since
        await until(lambda: set(manager.driver.working) == {"left", "posted"})
        marked = create("marked")
        marked.cancel_mark.touch()  # by a client whose service was killed a moment later
        await until(lambda: marked.load().state == "CANCELLED")
        runs = await manager.list(DocList[RunQuery]([RunQuery()]))
        assert {run.name: run.position for run in runs if run.position} == {"waiting": 1}
        manager.close()
        assert posted.load().state == "VALIDATING"

    asyncio.run(manage())


def test_a_run_that_cannot_be_read_does_not_keep_the_service_from_starting(attune_home: Path) -> None:
    create("fine")
    (create("damaged").path / "run.json").write_text('{"name": "damaged"')
    create("no-file").path.joinpath("run.json").unlink()

    async def manage() -> None:
        manager = RunManager(gateway=NOWHERE)
        await until(lambda: list(manager.driver.working) == ["fine"])
        manager.close()

    asyncio.run(manage())
