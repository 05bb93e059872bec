"""How a service answers many clients at once while one run trains, and what that costs the training.

One service with one run on this machine, and beside them the clients: two fifths follow the run, two fifths list runs
every second, one fifth pushes new pictures every two seconds. The training's pace is taken alone, with the clients, and
alone again, in the same run. All of it shares this machine's cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from attune.schemas import FinetuningRun
from benchmarks.load_clients import ROLES
from benchmarks.machine import RESULTS, command_line, describe_machine, write_result
from benchmarks.synthetic import make_examples
from client import AttuneClient
from client.events import get_events
from client.run import Run
from flows.background import Service, running

SETTLE_SECONDS = 5.0
BATCH = 64
SETTINGS = {
    "batch_size": BATCH,
    "epochs": 10_000,
    "early_stopping_patience": 0,
    "learning_rate": 1e-6,
    "check_pairs": False,
    "ema_decay": 0,
}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4, help="that the clients are spread over, as threads")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the three parts")
    parser.add_argument("--pictures", type=int, default=2000, help="that the run trains on")
    parser.add_argument("--runs", type=int, default=200, help="finished runs that are there already")
    parser.add_argument("--protocol", choices=["grpc", "http"], default="grpc")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--out", type=Path, default=RESULTS / "service_load.json")
    options = parser.parse_args()
    machine = describe_machine()
    # The clients are many addresses in real life, and one here: the limit by address would hold them back.
    limits = {"ATTUNE_REQUESTS_PER_SECOND": "0"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make_runs(home, options.runs)
        with running(Path("flows/finetune.yml"), home, Path(folder) / "service.log", **limits) as service:
            found = measure(service, options)
    roles = Counter(ROLES[number % len(ROLES)] for number in range(options.clients))
    content = {
        "command": command_line("service_load", sys.argv[1:]),
        "machine": machine,
        "clients": dict(roles),
        "protocol": options.protocol,
        "seconds": options.seconds,
        **found,
    }
    write_result(options.out, content)
    print(json.dumps({name: content[name] for name in ("clients", *found)}, indent=2))


def make_runs(home: Path, count: int) -> None:
    """Puts finished runs where the service keeps its own, so that lists have something to show."""
    for number in range(count):
        folder = home / "runs" / "default" / f"earlier-{number}"
        folder.mkdir(parents=True)
        created = datetime.fromtimestamp(1_700_000_000 + number).astimezone().isoformat()
        run = FinetuningRun(name=folder.name, state="FINISHED", created_at=created, finished_at=created, settings=SETTINGS)
        (folder / "run.json").write_text(run.model_dump_json())


def measure(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    """The three parts, one after the other."""
    url = getattr(service, options.protocol)
    attune = AttuneClient(url)
    attune.push("synthetic", make_examples(options.pictures), progress=False)
    run = attune.fit(options.model, "synthetic", run_name="busy", **SETTINGS)
    wait_until_it_trains(run)
    clients = start_clients(url, run.name, options)  # before the first part, so that it sees them wait
    try:
        paces = {"alone": pace_of(run, options.seconds)}
        start = time.time()
        for process in clients:
            tell(process, "go")
        time.sleep(options.seconds)
        paces["with_clients"] = pace_between(run, start + SETTLE_SECONDS, start + options.seconds)
        answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in clients]
    finally:
        for process in clients:
            process.kill()
    time.sleep(SETTLE_SECONDS)
    paces["alone_again"] = pace_of(run, options.seconds)
    run.cancel()
    alone = statistics.mean((paces["alone"], paces["alone_again"]))
    return {
        **summed(answers, options.seconds),
        "pairs_per_second": {name: round(pace, 1) for name, pace in paces.items()},
        "training_slowdown": round(1 - paces["with_clients"] / alone, 3),
    }


def wait_until_it_trains(run: Run) -> None:
    """Returns once the run has made some steps.

    Raises:
        RuntimeError: if it comes to an end instead.
    """
    for event in run.stream_events():
        if event.kind == "progress" and event.values.get("step", 0) >= 5:
            return
    raise RuntimeError(f"The run ended: {run.refresh().error}")


def start_clients(url: str, run: str, options: argparse.Namespace) -> list[subprocess.Popen[str]]:
    """Processes with the clients, all ready to begin."""
    shares = np.array_split(np.arange(options.clients), options.processes)
    processes = []
    for share in shares:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.load_clients", "--url", url, "--run", run]
        command += ["--first", str(share[0]), "--count", str(len(share)), "--seconds", str(options.seconds)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("A process of clients did not start")
    return processes


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Writes a line to a process."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def pace_of(run: Run, seconds: float) -> float:
    """Pairs per second in the next so many seconds."""
    start = time.time()
    time.sleep(seconds)
    return pace_between(run, start, start + seconds)


def pace_between(run: Run, start: float, end: float) -> float:
    """Pairs per second between two Unix times, validation included.

    Raises:
        ValueError: if the run told of its progress less than twice.
    """
    marks = [
        (moment, event.values["step"])
        for event in get_events(run._transport, run.reference)
        if event.kind == "progress" and start <= (moment := datetime.fromisoformat(event.time).timestamp()) <= end
    ]
    if len(marks) < 2:
        raise ValueError(f"{len(marks)} steps in {end - start:.0f} s are too few to tell a pace. Measure longer (--seconds)")
    (first, step), (last, last_step) = marks[0], marks[-1]
    return float((last_step - step) * BATCH / (last - first))


def summed(answers: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What all clients measured: milliseconds of each kind of call, and errors."""
    calls: dict[str, list[float]] = defaultdict(list)
    errors = Counter[str]()
    for answer in answers:
        errors.update(answer["errors"])
        for endpoint, values in answer["calls"].items():
            calls[endpoint] += values
    return {
        "milliseconds": {endpoint: percentiles(values) for endpoint, values in sorted(calls.items())},
        "calls_per_second": round(sum(map(len, calls.values())) / seconds, 1),
        "errors": dict(errors),
        "hung": sum(answer["hung"] for answer in answers),
        "cpu_seconds_of_clients": round(sum(answer["cpu_seconds"] for answer in answers), 1),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """How many there are, and their percentiles."""
    at = {f"p{rank}": round(float(np.percentile(values, rank)), 1) for rank in (50, 95, 99)}
    return {"calls": len(values), **at, "most": round(max(values), 1)}


if __name__ == "__main__":
    main()
