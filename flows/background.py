"""A Flow as a background process, for the demo, the examples, the benchmarks and the tests."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

START_SECONDS = 300
STOP_SECONDS = 130
PORTS = range(20000, 32000)
"""Below those that kernels give to outgoing connections, one of which could take a port before the Flow listens on it."""


@dataclass(frozen=True)
class Service:
    """A Flow that is up.

    Attributes:
        port: gRPC port; HTTP is the next one.
        monitoring_port: metrics port of the gateway; the executors' follow, in the order of the Flow file.
        process: the process that holds the Flow.
    """

    port: int
    monitoring_port: int
    process: subprocess.Popen[bytes]

    @property
    def grpc(self) -> str:
        """Its gRPC address, without TLS."""
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        """Its HTTP address, without TLS."""
        return f"http://127.0.0.1:{self.port + 1}"


@contextmanager
def running(flow: Path, home: Path, log: Path, **environment: str) -> Iterator[Service]:
    """Serves a Flow on free ports while the block runs, and stops every process of it at the end.

    Arguments and errors are those of `start`.
    """
    service = start(flow, home, log, **environment)
    try:
        yield service
    finally:
        stop(service.process)


def start(flow: Path, home: Path, log: Path, like: Service | None = None, **environment: str) -> Service:
    """A Flow that is up; `stop` stops it.

    Args:
        flow: Flow YAML.
        home: where it keeps everything (`ATTUNE_HOME`).
        log: file for its output.
        like: a service that is gone, whose ports it takes; free ones by default.
        **environment: more environment variables.

    Raises:
        RuntimeError: if it does not come up; the message ends with its last output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    port = like.port if like else free_ports(2)
    monitoring_port = like.monitoring_port if like else free_ports(8)
    command = [sys.executable, "-W", "ignore", "-m", "flows.serve", str(flow)]
    command += ["--port", str(port), "--monitoring-port", str(monitoring_port), "--stop-with-parent"]
    variables = {**os.environ, "ATTUNE_HOME": str(home.resolve()), "PYTHONWARNINGS": "ignore", **environment}
    with log.open("ab") as output:
        # A session of its own, so that Ctrl+C in the terminal reaches this process only and the Flow is stopped in order.
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables, start_new_session=True)
    service = Service(port, monitoring_port, process)
    try:
        _wait_until_up(service, log)
    except BaseException:
        stop(process)
        raise
    return service


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the Flow to stop; ends all that is left of its session if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def small_flow(folder: Path) -> Path:
    """Writes the fine-tuning Flow without the executors that load models: it starts sooner, and its gateway is the same."""
    config = yaml.safe_load(Path("flows/finetune.yml").read_text(encoding="utf-8"))
    config["executors"] = [part for part in config["executors"] if part["name"] in ("run_manager", "data_validator")]
    path = folder / "small.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def free_ports(count: int) -> int:
    """The first of `count` successive ports that nobody uses now."""
    while True:
        first = random.choice(PORTS)
        if all(map(_is_free, range(first, first + count))):
            return first


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_up(service: Service, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.process.poll() is None:
        # The gateway listens once every executor answers it, first on one port and then on the other.
        if _listens(service.port) and _listens(service.port + 1):
            return
        time.sleep(0.2)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"The Flow did not come up within {START_SECONDS} s. Its last output:\n{tail}")
