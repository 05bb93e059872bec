"""Starts a Flow as a service, and starts it again if a part of it is lost: `python -m flows.serve flows/finetune.yml`.

It is the Flow that `jina flow --uses` starts, in a process that this one watches over. Nothing in Jina restarts an
executor that died, so when the gateway or an executor is gone the rest is stopped and the whole Flow started again; runs
go on by themselves. SIGTERM and Ctrl+C stop everything in order. If this process is killed, the kernel stops the others.
"""

import argparse
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from attune.errors import SettingsError
from attune.service.settings import service_settings, unknown_variables
from attune.service.tls import certificate_name
from attune.service.tokens import check_exposure

if TYPE_CHECKING:
    from jina import Flow

logger = logging.getLogger("attune.serve")

STOP_SECONDS = 100.0  # to end in order, before what is left is killed: a training ends its step and writes a checkpoint
SETTLED_SECONDS = 600.0  # whoever was up for so long is started again without delay
LONGEST_DELAY_SECONDS = 60.0
LOST = 75  # exit code of a Flow that was up and lost a part


def flow_config(path: Path, port: int | None = None, monitoring_port: int | None = None) -> dict[str, Any]:
    """What a Flow file says, with other ports if they are given.

    Args:
        path: Flow YAML of this repository.
        port: gRPC port of the gateway instead of the file's; HTTP is the port after it.
        monitoring_port: metrics port of the gateway instead of the file's; the executors' are those after it.
    """
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["gateway"]["host"] = service_settings().host  # what Jina then says; the gateway asks the setting itself
    if port is not None:
        config["gateway"]["port"] = [port, port + 1]
        for executor in config["executors"]:
            if "gateway" in executor.get("uses_with", {}):
                executor["uses_with"]["gateway"] = f"grpc://127.0.0.1:{port}"
    if monitoring_port is not None:
        for number, part in enumerate([config["gateway"], *config["executors"]]):
            part["port_monitoring"] = monitoring_port + number
    return config


def serve(config: dict[str, Any], stop: threading.Event) -> int:
    """Runs a Flow until it is to stop; no process of it is left then. Returns the exit code."""
    from jina import Flow
    from jina.excepts import RuntimeFailToStart

    flow = Flow.load_config(yaml.safe_dump(config, sort_keys=False))
    flow.close = lambda: None  # it would wait forever for parts that wait for one that failed
    is_up = threading.Event()
    threading.Thread(target=_end_if_lost, args=(flow, is_up, stop), daemon=True).start()
    try:
        flow.start()
    except RuntimeFailToStart:  # the log says why
        stop.set()
        end(multiprocessing.active_children())
        return 1
    is_up.set()
    stop.wait()
    end(multiprocessing.active_children())
    return 0


def _end_if_lost(flow: "Flow", is_up: threading.Event, stop: threading.Event) -> None:
    """Ends the Flow and this process with the code `LOST` when a process of it is gone before it is to stop.

    Also while the Flow starts, when Jina would wait minutes for a part that was killed; it sees itself when one gives up.
    """
    while not stop.wait(0.2):
        codes = {process: process.exitcode for process in _processes(flow)}
        lost = [process for process, code in codes.items() if code is not None and (is_up.is_set() or code < 0)]
        if lost:
            logger.error("%s; the rest is stopped", "; ".join(map(_how_it_ended, lost)))
            if is_up.is_set():
                end(multiprocessing.active_children())
            else:  # those that start do not stop in order
                for process in multiprocessing.active_children():
                    process.kill()
            logging.shutdown()
            os._exit(LOST)


def _processes(flow: "Flow") -> list[BaseProcess]:
    """Those of the gateway and the executors.

    Ended ones as well, which `multiprocessing.active_children` may forget before anybody knew them.
    """
    pods = []
    for _, deployment in list(flow):
        replicas = [pod for shard in list(deployment.shards.values()) for pod in shard._pods]
        pods += [pod for pod in (deployment.gateway_pod, deployment.head_pod, *replicas) if pod is not None]
    return [pod.worker for pod in pods]


def end(processes: list[BaseProcess]) -> None:
    """Stops processes in order, all at once; those that take longer than `STOP_SECONDS` are killed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            logger.error("%s did not stop within %g s and is killed", process.name, STOP_SECONDS)
            process.kill()
            process.join()


def supervise(command: list[str], stop: threading.Event) -> int:
    """Runs a command, and again whenever it loses a part, until it is to stop. Returns the exit code.

    A command that fails before it was ever up is not run again: what is wrong is in its settings.
    """
    delay = 1.0
    was_up = False
    while True:
        start = time.monotonic()
        code = _run(command, stop)
        was_up = was_up or code == LOST or code < 0
        if stop.is_set() or not was_up:
            return 0 if stop.is_set() else code
        delay = 1.0 if time.monotonic() - start > SETTLED_SECONDS else delay
        logger.error("the service ended with code %d and is started again in %g s", code, delay)
        if stop.wait(delay):
            return 0
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)


def _run(command: list[str], stop: threading.Event) -> int:
    # A session of its own: Ctrl+C in the terminal is for this process, which then stops the Flow in order.
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        _bury_others(process.pid)
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(STOP_SECONDS + 10)
            except subprocess.TimeoutExpired:
                logger.error("the service did not stop and is killed")
                process.kill()
    code = process.wait()
    _end_group(process.pid)
    return code


def _end_group(group: int) -> None:
    """Waits until the Flow's processes are gone, whose ports are needed; they end if the one that held the Flow did."""
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):  # nobody is left
        while time.monotonic() < deadline:
            _bury_others(group)
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


def _bury_others(own: int) -> None:
    """Takes note of the end of processes that were left to this one: in a container it is the first, and has to."""
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != own:
            os.waitpid(ended.si_pid, 0)


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return f"{process.name} ended by {signal.Signals(-code).name}" if code < 0 else f"{process.name} ended with code {code}"


def _until_signal() -> threading.Event:
    stop = threading.Event()
    parent = os.getpid()

    def on_signal(*_: Any) -> None:
        # The Flow's processes are forked from this one with its handlers; one that is not up yet just ends.
        stop.set() if os.getpid() == parent else os._exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def _check(flow: Path) -> None:
    """Passes if the service may start.

    Raises:
        SettingsError: with what is wrong, before the minute that it takes to start.
    """
    for name, hint in unknown_variables().items():
        logger.warning("%s is no setting of the service%s, and changes nothing", name, hint)
    if not flow.is_file():
        raise SettingsError(f"{flow} is no file. Give a Flow YAML such as flows/finetune.yml")
    check_exposure()
    settings = service_settings()
    try:
        socket.getaddrinfo(settings.host, None)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"ATTUNE_HOST = {settings.host!r} is no address: {error}") from error
    if settings.tls_certificate and settings.tls_key:
        certificate_name(settings.tls_certificate, settings.tls_key)


def _stop_after(parent: int, stop: threading.Event) -> None:
    """Sets the event once the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    stop.set()


def main() -> None:
    """Serves until SIGTERM or Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flow", type=Path, help="a Flow YAML such as flows/finetune.yml")
    parser.add_argument("--port", type=int, help="gRPC port; HTTP is the next one (default: the file's)")
    parser.add_argument("--monitoring-port", type=int, help="first of the metrics ports (default: the file's)")
    parser.add_argument("--once", action="store_true", help="do not start it again if a part of it is lost")
    parser.add_argument("--stop-with-parent", action="store_true", help="stop when the process that started this one ends")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    stop = _until_signal()
    try:
        _check(arguments.flow)
    except SettingsError as error:
        sys.exit(str(error))
    if arguments.once:
        from flows.local import end_with_parent

        end_with_parent()
        code = serve(flow_config(arguments.flow, arguments.port, arguments.monitoring_port), stop)
        logging.shutdown()
        os._exit(code)  # nothing is left to end, and to take Jina and torch apart takes seconds on a busy machine
    if arguments.stop_with_parent:
        threading.Thread(target=_stop_after, args=(os.getppid(), stop), daemon=True).start()
    warnings = [f"-W{option}" for option in sys.warnoptions]
    sys.exit(supervise([sys.executable, *warnings, "-m", "flows.serve", *sys.argv[1:], "--once"], stop))


if __name__ == "__main__":
    main()
