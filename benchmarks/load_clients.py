"""Some of the clients of `benchmarks.service_load`, in one process: each a thread with a connection of its own.

It prints `ready`, waits for a line on stdin, and after its time prints what it measured as one line of JSON.
"""

import argparse
import io
import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from PIL import Image

from attune.errors import AttuneError
from attune.schemas import TrainingExample
from client import AttuneClient

ROLES = ("follow", "follow", "list", "list", "push")
"""What the clients do, in turn."""
LIST_SECONDS = 1.0
PUSH_SECONDS = 2.0
EXAMPLES = 16
RUNS_LISTED = 20


class TimeIsUp(Exception):
    """No call is begun any more."""


class Timed:
    """A transport that notes how long each call over another one took, until the time is up.

    Args:
        transport: the other one.
        until: `time.monotonic()` of the end.
    """

    def __init__(self, transport: Any, until: float) -> None:
        self.address = transport.address
        self.transport = transport
        self.until = until
        self.milliseconds: dict[str, list[float]] = defaultdict(list)

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        """See `client.transport.Transport`."""
        start = time.monotonic()
        if start > self.until:
            raise TimeIsUp
        answer: list[Any] = self.transport.call(endpoint, documents, parameters)
        self.milliseconds[endpoint].append(1000 * (time.monotonic() - start))
        return answer


def follow(attune: AttuneClient, run: str, _: random.Random) -> None:
    """Follows the run, from its first event on."""
    for _event in attune.get_run(run).stream_events():
        pass


def list_runs(attune: AttuneClient, _: str, chance: random.Random) -> None:
    """Lists runs every second."""
    while True:
        attune.list_runs(limit=RUNS_LISTED)
        time.sleep(chance.uniform(0.5, 1.5) * LIST_SECONDS)


def push(attune: AttuneClient, _: str, chance: random.Random) -> None:
    """Pushes new pictures every two seconds, as the same dataset."""
    name = f"load-{chance.getrandbits(32):08x}"
    while True:
        attune.push(name, [_example(chance) for _ in range(EXAMPLES)], progress=False)
        time.sleep(chance.uniform(0.5, 1.5) * PUSH_SECONDS)


WORK: dict[str, Callable[[AttuneClient, str, random.Random], None]] = {"follow": follow, "list": list_runs, "push": push}


def _example(chance: random.Random) -> TrainingExample:
    picture = Image.frombytes("RGB", (64, 64), chance.randbytes(64 * 64 * 3))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return TrainingExample(image=buffer.getvalue(), captions=[f"noise {chance.random()}"])


def main() -> None:
    """Runs the clients for their time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--first", type=int, required=True, help="number of the first client")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    clients = [AttuneClient(options.url) for _ in range(options.count)]
    clients[0].get_run(options.run)  # imports all there is to import
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + options.seconds
    errors = Counter[str]()
    timed = []

    def work(number: int, attune: AttuneClient) -> None:
        chance = random.Random(number)
        time.sleep(chance.uniform(0, LIST_SECONDS))  # they do not all begin at once
        while time.monotonic() < until:
            try:
                WORK[ROLES[number % len(ROLES)]](attune, options.run, chance)
            except TimeIsUp:
                return
            except AttuneError as error:
                errors[f"{type(error).__name__}: {str(error)[:200]}"] += 1
                time.sleep(1)

    threads = []
    for number, attune in enumerate(clients, start=options.first):
        attune._transport = Timed(attune._transport, until)
        timed.append(attune._transport)
        threads.append(threading.Thread(target=work, args=(number, attune), daemon=True))
    start = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        with suppress(RuntimeError):
            thread.join(max(0.0, until + 60 - time.monotonic()))
    calls: dict[str, list[float]] = defaultdict(list)
    for transport in timed:
        for endpoint, values in transport.milliseconds.items():
            calls[endpoint] += values
    hung = sum(thread.is_alive() for thread in threads)
    found = {"calls": calls, "errors": errors, "hung": hung, "cpu_seconds": time.process_time() - start}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
