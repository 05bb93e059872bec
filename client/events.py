"""A run's history as it is written."""

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from client.transport import RETRY_AFTER_SECONDS, Transport, call_one, patiently

if TYPE_CHECKING:
    from attune.schemas import FinetuningRun, RunEvent

POLL_SECONDS = 0.5
PAGE = 1000
"""Events asked for at a time."""
RESTART_SECONDS = (*RETRY_AFTER_SECONDS, *[10.0] * 30)
"""Waits for a service that is being restarted, some five minutes in all."""


def get_run(transport: Transport, name: str) -> "FinetuningRun":
    """The run as it is now.

    Args:
        transport: the way to the service.
        name: `experiment/name`, or `name` alone in the experiment `default`.

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
    while True:
        page = transport.call("/runs/events", [RunQuery(name=name, after=after, limit=PAGE)])
        events += page
        if len(page) < PAGE:
            return events
        after = page[-1].number


def follow_events(transport: Transport, name: str, after: int = 0) -> Iterator["RunEvent"]:
    """Every event of a run with a number above `after`, once, to the one that ends it. Waits for those not there yet.

    A service that does not answer is asked again for some five minutes: it may be restarted meanwhile.
    """
    from attune.schemas import END_STATES

    ended = False
    while True:
        events = patiently(partial(get_events, transport, name, after), RESTART_SECONDS)
        yield from events
        if events:
            after, ended = events[-1].number, False
        elif ended:
            return
        else:
            # A run's last event is written before its end is saved: what there is is looked for once more.
            ended = patiently(partial(get_run, transport, name), RESTART_SECONDS).state in END_STATES
        if not ended:
            time.sleep(POLL_SECONDS)
