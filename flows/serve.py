"""Starts a Flow as a service: `python -m flows.serve flows/finetune.yml`.

The same Flow that `jina flow --uses` starts, with what a service needs beside it: it stops every process on SIGTERM
(plain `jina flow` leaves them behind), sends no telemetry, looks up no public address, and can listen on other ports.
"""

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

import yaml


def load_flow(path: Path, port: int | None = None, monitoring_port: int | None = None) -> Any:
    """The Flow of a YAML file, without Jina's telemetry and address look-ups.

    Args:
        path: Flow YAML of this repository.
        port: gRPC port of the gateway instead of the file's; HTTP is the port after it.
        monitoring_port: metrics port of the gateway instead of the file's; the executors' are those after it.
    """
    os.environ["JINA_OPTOUT_TELEMETRY"] = "1"
    import jina.orchestrate.orchestrator
    from jina import Flow

    jina.orchestrate.orchestrator.get_public_ip = lambda *_, **__: None
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if port is not None:
        config["gateway"]["port"] = [port, port + 1]
        for executor in config["executors"]:
            if "gateway" in executor.get("uses_with", {}):
                executor["uses_with"]["gateway"] = f"grpc://127.0.0.1:{port}"
    if monitoring_port is not None:
        for number, part in enumerate([config["gateway"], *config["executors"]]):
            part["port_monitoring"] = monitoring_port + number
    return Flow.load_config(yaml.safe_dump(config, sort_keys=False))


def main() -> None:
    """Serves until SIGTERM or Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flow", type=Path, help="a Flow YAML such as flows/finetune.yml")
    parser.add_argument("--port", type=int, help="gRPC port; HTTP is the next one (default: the file's)")
    parser.add_argument("--monitoring-port", type=int, help="first of the metrics ports (default: the file's)")
    arguments = parser.parse_args()
    stop = threading.Event()
    parent = os.getpid()

    def on_signal(*_: Any) -> None:
        # The Flow's processes are forked from this one with its handlers; one that is not up yet just ends.
        stop.set() if os.getpid() == parent else os._exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    with load_flow(arguments.flow, arguments.port, arguments.monitoring_port) as flow:
        flow.block(stop)


if __name__ == "__main__":
    main()
