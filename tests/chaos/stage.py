"""The service that faults are inflicted on, with a disk and a clock of its own where the machine allows it."""

import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attune.models.clip import load_clip
from attune.schemas import FinetuningRun
from client import AttuneClient
from flows.background import Service, running, start, stop
from tests.chaos.data import examples
from tests.chaos.faults import FAULTS, Missed, Scene, can_fill
from tests.chaos.rounds import at_random, finish, losses, start_run
from tests.chaos.witness import Witness
from tests.conftest import TINY_CONFIG

FLOW = Path("flows/finetune.yml")
CLOCKS = (*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib").glob("faketime/libfaketimeMT.so.1"))
"""libfaketime, which sets the clock of the processes that load it."""
TRIES = 5


@dataclass
class Stage:
    """A service with data, and a run that nothing disturbed.

    Attributes:
        folder: everything lies in it.
        service: the one that is up now.
        home: its ATTUNE_HOME.
        disk: the disk that the home is on, if it has one of its own.
        clock: file that sets the clock of services that load libfaketime, if they can.
        clock_is_set: whether the service that is up has loaded it.
    """

    folder: Path
    service: Service
    home: Path
    disk: Path | None
    clock: Path | None
    clock_is_set: bool = False

    @property
    def model(self) -> Path:
        """Of every run."""
        return self.folder / "model"

    @property
    def undisturbed(self) -> Path:
        """Folder of the run that the others must equal."""
        return self.home / "runs" / "default" / "undisturbed"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        return _clock(self.clock if self.clock_is_set else None)

    def set_clock(self, wanted: bool) -> None:
        """Starts the service again, with or without a clock that can be set: libfaketime breaks waiting with a timeout now
        and then, so only the faults that need it live with it."""
        if wanted != self.clock_is_set:
            self.clock_is_set = wanted
            self.service.process.terminate()
            self.restart()

    def restart(self) -> Service:
        """Starts the service again, on the same ports."""
        self.service.process.wait()
        self.service = start(FLOW, self.home, self.folder / "service.log", like=self.service, **self.environment)
        return self.service

    def cannot(self, fault: str) -> str:
        """Why a fault cannot be inflicted on this machine; empty if it can."""
        if fault.startswith("disk") and self.disk is None:
            return "only root may mount a small disk"
        if fault.startswith("clock") and self.clock is None:
            return "libfaketime is not installed (apt-get install faketime)"
        return ""

    def play(self, faults: Sequence[str], name: str, chance: random.Random) -> list[str]:
        """A run to its end with faults at random moments of it, and what they have cost."""
        undisturbed = FinetuningRun.model_validate_json((self.undisturbed / "run.json").read_text())
        self.set_clock(any(fault.startswith("clock") for fault in faults))
        attune = AttuneClient(self.service.grpc)
        for number in range(TRIES):
            run = start_run(attune, self.model, f"{name}-{number}")
            witness = Witness(attune, run)
            another = partial(running, FLOW, self.home, self.folder / "another.log", **self.environment)
            scene = Scene(self.service, self.restart, another, self.home, run, witness, chance, self.disk, self.clock)
            missed, broken = False, []
            try:
                for fault in faults:
                    at_random(scene.folder, chance.choice(FAULTS[fault].during), undisturbed, chance)
                    FAULTS[fault].inflict(scene)
            except Missed:
                missed = True
            except AssertionError as error:  # the service did not take it as it should; the run still comes to its end
                broken.append(str(error))
                if self.service.process.poll() is not None:
                    self.restart()
            finally:
                try:
                    finish(run)
                finally:
                    witness.end()
            found = broken + losses(scene, self.undisturbed, any(FAULTS[fault].fails for fault in faults))
            attune.delete_run(run.reference)
            if found or not missed:
                return found
        return [f"missed {TRIES} times"]


@contextmanager
def prepared(folder: Path) -> Iterator[Stage]:
    """A service that is up, with a dataset and a finished run; all of it is gone after the block."""
    disk = folder / "disk"
    disk_of_its_own = can_fill(disk)
    clock = folder / "clock" if CLOCKS else None
    if clock is not None:
        clock.write_text("+0\n")
    home = disk / "home"
    service = start(FLOW, home, folder / "service.log")
    stage = Stage(folder, service, home, disk if disk_of_its_own else None, clock)
    try:
        (folder / "scratch").mkdir()
        (folder / "scratch" / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
        load_clip(f"{folder / 'scratch'}#scratch").save_folder(stage.model)
        attune = AttuneClient(stage.service.grpc)
        attune.push("shapes", examples("to train on"), progress=False)
        start_run(attune, stage.model, "undisturbed").wait(progress=False)
        yield stage
    finally:
        stop(stage.service.process)
        if disk_of_its_own:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)


def _clock(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    return {
        "LD_PRELOAD": str(CLOCKS[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
