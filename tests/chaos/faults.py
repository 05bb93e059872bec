"""What is done to a service while a run is at work in it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attune.errors import AttuneError
from attune.runs.events import EVENTS
from attune.schemas import FinetuningRun
from client.run import Run
from flows.background import Service
from tests.chaos import processes
from tests.chaos.patience import patient
from tests.chaos.witness import Witness
from tests.processes import descendants, is_alive, wait_until

STAGES = ("validate", "train", "evaluate", "export")
CLIENT = """
import sys
from client import AttuneClient
from tests.chaos.data import examples
url, name, run = sys.argv[1:]
attune = AttuneClient(url)
print("up", flush=True)
attune.push(name, examples(name), batch_size=2, progress=False)
for line in attune.get_run(run).stream_logs():
    print(line, flush=True)
"""
"""A user's own program: it pushes data and follows a run."""


class Missed(Exception):
    """What was to be hit was gone by then."""


@dataclass
class Scene:
    """A service with a run at work in it.

    Attributes:
        service: is replaced by those who start it again.
        restart: starts the service again once it is gone, on the same ports and home.
        another: a second service on the same home, while a block runs.
        home: its ATTUNE_HOME, on a disk of its own if `disk` is set.
        run: the run at work.
        witness: its users.
        chance: of all moments.
        disk: where that disk is mounted, if there is one.
        clock: file that the service's clock is set by, if it can be.
    """

    service: Service
    restart: Callable[[], Service]
    another: Callable[[], AbstractContextManager[Service]]
    home: Path
    run: Run
    witness: Witness
    chance: random.Random
    disk: Path | None = None
    clock: Path | None = None

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.home / "runs" / "default" / self.run.name

    def pause(self, seconds: float) -> None:
        """A moment of at most so long."""
        time.sleep(self.chance.random() * seconds)


@dataclass(frozen=True)
class Fault:
    """Something that happens to a service.

    Attributes:
        inflict: does it.
        during: stages of a run in which it is done.
        fails: whether a run may fail of it; it is resumed then.
    """

    inflict: Callable[[Scene], None]
    during: tuple[str, ...] = STAGES
    fails: bool = False


def kill_part(name: str, scene: Scene) -> None:
    """The gateway or an executor is gone."""
    assert processes.kill(processes.part(scene.service, name)), f"{name} was not there to be killed"


def kill_child(stage: str, scene: Scene) -> None:
    """The process that does a stage's work is gone."""
    if not processes.kill(processes.stage_child(scene.home, stage, scene.run.reference)):
        raise Missed


def kill_service(scene: Scene) -> None:
    """All processes of the service are gone but those of the stages, which have to see it themselves."""
    children = {processes.stage_child(scene.home, stage, scene.run.reference) for stage in STAGES}
    for number in descendants(scene.service.process.pid):
        if number not in children:
            processes.kill(number)
    scene.service = scene.restart()


def kill_everything(scene: Scene) -> None:
    """All processes are gone, as in a power cut, and the service is started again."""
    for number in descendants(scene.service.process.pid):
        processes.kill(number)
    scene.service = scene.restart()


def kill_again_and_again(scene: Scene) -> None:
    """One power cut after the other, some before the service is up again."""
    for _ in range(3):
        kill_everything(scene)
        scene.pause(10)


def stop_service(scene: Scene) -> None:
    """The service is asked to stop in the middle of the run, and started again."""
    whole = descendants(scene.service.process.pid)
    scene.service.process.send_signal(signal.SIGTERM)
    code = scene.service.process.wait(120)
    assert code == 0, f"SIGTERM ended the service with code {code}"
    assert wait_until(lambda: not any(map(is_alive, whole)), 90), "SIGTERM left processes behind"
    scene.service = scene.restart()


def tear_writes(scene: Scene) -> None:
    """What processes leave that are killed while they write: half a line of history, drafts of files beside them."""
    with (scene.folder / EVENTS).open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00", "kind": "progr')
    for name in (".run.json.0badf00d", "checkpoints/.last.pt.0badf00d", "report/.metrics.json.0badf00d"):
        (scene.folder / name).parent.mkdir(exist_ok=True)
        (scene.folder / name).write_bytes(b'{"name": "half')
    kill_everything(scene)


def claim_twice(scene: Scene) -> None:
    """Two more processes want to do the stage at work, and one after the other that does it is gone."""
    at_work = processes.stage_child(scene.home, "train", scene.run.reference)
    environment = {**os.environ, "ATTUNE_HOME": str(scene.home.resolve())}
    command = [sys.executable, "-W", "ignore", "-m", "attune", "train", scene.run.reference]
    others = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        numbers = {other.pid for other in others}
        wait_until(lambda: numbers <= processes.waiting_for_locks() or any(other.poll() is not None for other in others))
        scene.pause(1)
        missed = not processes.kill(at_work)
        scene.pause(5)
        others[0].kill()
        others[1].wait(300)
    finally:
        for other in others:
            other.kill()
            other.wait()
    if missed:
        raise Missed


def serve_twice(scene: Scene) -> None:
    """A second service is started on the same home, and the first one is gone."""
    with scene.another():
        scene.pause(5)
        for number in descendants(scene.service.process.pid):
            processes.kill(number)
        scene.pause(10)
        scene.service = scene.restart()


def kill_client(scene: Scene) -> None:
    """The program that pushes data and follows the run is gone; its user starts it again."""
    name = f"{scene.run.name}-own"
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, scene.service.grpc, name, scene.run.reference]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            scene.pause(4)
            client.kill()
    scene.witness.push(name)


def ask_twice(scene: Scene) -> None:
    """The requests that start the run and take it through its stages arrive again, several at once."""
    document = FinetuningRun(**scene.run.document.model_dump(exclude={"id", "position", "progress"}))
    call = scene.run._transport.call
    assert [run.reference for run in call("/runs/submit", [document])] == [scene.run.reference]

    def finetune() -> None:
        with suppress(AttuneError):  # of the next fault
            call("/finetune", [document])

    for _ in range(3):  # each waits for the run's end
        threading.Thread(target=finetune, daemon=True).start()


def fill_disk(scene: Scene) -> None:
    """The disk is full for a while."""
    assert scene.disk is not None
    filler = scene.disk / "filler"
    fill(filler)
    assert wait_until(lambda: patient(scene.run.status) in ("FAILED", "FINISHED"), 120)
    filler.unlink()


def jump_clock(hours: int, scene: Scene) -> None:
    """The machine's clock is set, and later set right."""
    assert scene.clock is not None
    scene.clock.write_text(f"{hours:+d}h\n")
    scene.pause(10)
    scene.clock.write_text("+0\n")


FAULTS = {
    "client killed": Fault(kill_client),
    "gateway killed": Fault(partial(kill_part, "gateway")),
    "run_manager killed": Fault(partial(kill_part, "run_manager")),
    "data_validator killed": Fault(partial(kill_part, "data_validator")),
    "trainer killed": Fault(partial(kill_part, "trainer"), ("train",)),
    "evaluator killed": Fault(partial(kill_part, "evaluator"), ("evaluate",)),
    "exporter killed": Fault(partial(kill_part, "exporter"), ("export",)),
    "training process killed": Fault(partial(kill_child, "train"), ("train",), fails=True),
    "evaluating process killed": Fault(partial(kill_child, "evaluate"), ("evaluate",), fails=True),
    "exporting process killed": Fault(partial(kill_child, "export"), ("export",), fails=True),
    "service killed": Fault(kill_service),
    "everything killed": Fault(kill_everything),
    "everything killed three times": Fault(kill_again_and_again, ("train",)),
    "service stopped": Fault(stop_service),
    "writes torn, everything killed": Fault(tear_writes),
    "two more processes claim the run": Fault(claim_twice, ("train",)),
    "a second service claims the run": Fault(serve_twice, ("train",)),
    "requests delivered again": Fault(ask_twice),
    "disk full": Fault(fill_disk, ("train", "evaluate"), fails=True),
    "clock 26 hours on": Fault(partial(jump_clock, 26)),
    "clock 26 hours back": Fault(partial(jump_clock, -26)),
}


def fill(file: Path) -> None:
    """Writes to a file until not one byte more is free on its disk."""
    with file.open("ab", buffering=0) as opened:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while opened.write(bytes(size)):
                    pass


def can_fill(folder: Path, size: str = "1g") -> bool:
    """Mounts a small disk at the folder, where this machine lets us."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode == 0
