"""A run's history as it is written."""

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from client.transport import Transport, call_one, patiently

if TYPE_CHECKING:
    from attune.schemas import FinetuningRun, RunEvent

POLL_SECONDS = 0.5


def get_run(transport: Transport, name: str) -> "FinetuningRun":
    """The run as it is now.

    Raises:
        RunNotFound: if there is none of that name.
    """
    from attune.schemas import FinetuningRun, RunQuery

    run: FinetuningRun = call_one(transport, "/runs/get", [RunQuery(name=name)])
    return run


def get_events(transport: Transport, name: str, after: int = 0) -> list["RunEvent"]:
    """Events with numbers above `after` that are there now, in order."""
    from attune.schemas import RunQuery

    events: list[RunEvent] = []
    while page := transport.call("/runs/events", [RunQuery(name=name, after=after)]):
        events += page
        after = page[-1].number
    return events


def follow_events(transport: Transport, name: str, poll_seconds: float = POLL_SECONDS) -> Iterator["RunEvent"]:
    """Every event of a run, once, from the first to the one that ends it. Waits for those not there yet."""
    from attune.schemas import END_STATES

    after = 0
    while True:
        # The state is asked for before the events: a run's last event is written before its end is saved.
        ended = patiently(partial(get_run, transport, name)).state in END_STATES
        events = patiently(partial(get_events, transport, name, after))
        yield from events
        if events:
            after = events[-1].number
        elif ended:
            return
        else:
            time.sleep(poll_seconds)
