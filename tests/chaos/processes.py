"""The processes of a service, found as the kernel knows them: by the port one listens on, by what it was started as."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from flows.background import Service
from tests.processes import descendants, listening

PARTS = ("gateway", "run_manager", "data_validator", "trainer", "evaluator", "exporter")
"""In the order of their metrics ports, which is that of the Flow file."""


def part(service: Service, name: str) -> int | None:
    """Process number of the gateway or an executor; None while it is down."""
    port = service.monitoring_port + PARTS.index(name)
    return next((number for number in descendants(service.process.pid) if port in listening([number])), None)


def stage_child(home: Path, stage: str, reference: str) -> int | None:
    """The process `python -m attune STAGE RUN` of a service's home; None if there is none."""
    here = f"ATTUNE_HOME={home.resolve()}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            if words[-3:] == [b"attune", stage.encode(), reference.encode()] and here in _environment(entry):
                return int(entry.name)
    return None


def waiting_for_locks() -> set[int]:
    """Processes that wait until another one frees the lock of a file."""
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return {int(row[5]) for row in rows if row[1] == "->"}


def kill(number: int | None) -> bool:
    """SIGKILL; False if there is no such process."""
    if number is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
        return True
    return False


def _environment(entry: Path) -> list[bytes]:
    return (entry / "environ").read_bytes().split(b"\0")
