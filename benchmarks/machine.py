"""What a result was measured on, and where it is written. Run alone, it prints the record of this machine."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from attune.environment import describe_environment
from attune.files import write_text

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, object]:
    """Hardware, versions and commit, and what decides whether they can be trusted: threads, load, local changes.

    Holds nothing that tells one machine from another of its kind: no host name, no user, no path.
    """
    environment = describe_environment()
    packages = dict(environment["packages"])  # type: ignore[call-overload]
    return {
        **environment,
        "packages": packages | {name: found for name in ("pandas", "webdataset") if (found := _version(name))},
        "uncommitted_changes": _uncommitted_changes(),
        "gpus": _gpus(),
        "torch_threads": torch.get_num_threads(),
        "load_when_started": round(os.getloadavg()[0], 2),  # processes that already wanted a core
    }


def command_line(module: str, arguments: list[str]) -> str:
    """The command that was run, with every path cut to its last name."""
    words = [without_path(word) for word in arguments]
    return " ".join(["python -m", f"benchmarks.{module}", *words])


def without_path(word: str) -> str:
    """A word of a command line with a path in it cut to the path's last name."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if "/" in value else word


def write_result(path: Path, content: dict[str, object]) -> None:
    """Writes a result as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _gpus() -> list[dict[str, object]]:
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in devices]


def _uncommitted_changes() -> bool | None:
    """Whether the measured code differs from its commit; None outside a checkout."""
    command = ["git", "-C", str(RESULTS.parent), "status", "--porcelain", "--", ":/attune", ":/benchmarks/*.py"]
    try:
        return bool(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    json.dump(describe_machine(), sys.stdout, indent=2)
    print()
