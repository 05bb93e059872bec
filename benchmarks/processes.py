"""Runs a program in a process of its own and watches it: when each line came, how much memory it and its workers held."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

INTERVAL_SECONDS = 1.0
"""Between two looks at the memory. A look walks the page tables of every process, so more of them would slow the program."""


@dataclass
class Watched:
    """What was seen of a program that has ended.

    Attributes:
        lines: Unix time and text of each line it printed.
        seconds: wall-clock time from start to end.
        peak_memory_mib: most resident memory of the process and all its children at one look, shared pages counted
            once (proportional set size); 0 where the system does not tell it.
        gpu: Unix time, utilisation in percent and memory used in MiB of the first GPU, at each look.
    """

    lines: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    gpu: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def peak_gpu_memory_mib(self) -> float:
        """Most memory in use on the first GPU at one look; 0 without a GPU."""
        return max((used for _, _, used in self.gpu), default=0.0)

    def gpu_use(self, start: float, end: float) -> float | None:
        """Mean utilisation (0 to 1) of the first GPU between two Unix times; None if there was no look."""
        found = [use for moment, use, _ in self.gpu if start <= moment <= end]
        return sum(found) / len(found) / 100 if found else None


def watch(command: list[str], folder: Path, device: str, environment: dict[str, str] | None = None) -> Watched:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        folder: its working folder.
        device: `cpu` hides all GPUs from it.
        environment: variables besides this process's own.

    Raises:
        RuntimeError: if it fails; the message ends with its last lines.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    found = Watched()
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **hidden, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    ended = threading.Event()
    watcher = threading.Thread(target=_look, args=(process.pid, found, ended, device))
    watcher.start()
    with process:  # closes the pipe
        try:
            for line in process.stdout or ():
                found.lines.append((time.time(), line.rstrip("\n")))
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            ended.set()
            watcher.join()
    found.seconds = time.monotonic() - start
    if code != 0:
        tail = "\n".join(text for _, text in found.lines[-25:])
        raise RuntimeError(f"{' '.join(command[:4])} ... ended with {code}:\n{tail}")
    return found


def _look(pid: int, found: Watched, ended: threading.Event, device: str) -> None:
    while not ended.wait(INTERVAL_SECONDS):
        found.peak_memory_mib = max(found.peak_memory_mib, sum(map(_proportional_mib, family(pid))))
        if device != "cpu" and shutil.which("nvidia-smi"):
            found.gpu += _gpu()


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


def _proportional_mib(process: psutil.Process) -> float:
    with suppress(psutil.Error):  # it has ended meanwhile
        return float(getattr(process.memory_full_info(), "pss", 0)) / 2**20
    return 0.0


def _gpu() -> list[tuple[float, float, float]]:
    query = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split(",")
    return [(time.time(), float(answer[0]), float(answer[1]))] if len(answer) == 2 else []
