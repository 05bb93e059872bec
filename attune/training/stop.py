"""Stopping when asked to: SIGTERM ends training after the step it is at, with a checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LAUNCHER = "ATTUNE_LAUNCHER"
"""Environment variable with the number of the process that started this one, and without which it is to stop."""

_asked = threading.Event()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGTERM is remembered instead of ending the process; yields a function that tells of it.

    What is remembered in a block is known in the blocks inside it.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, _remember)
    try:
        yield _asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
        if before is not _remember:
            _asked.clear()


def _remember(*_: Any) -> None:
    _asked.set()
