"""Asking a service that may be away for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from attune.errors import ServiceUnavailable, StorageFull

PATIENCE_SECONDS = 600
Result = TypeVar("Result")


def patient(call: Callable[[], Result]) -> Result:
    """The call's result, however long the service is away or its disk is full."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except (ServiceUnavailable, StorageFull):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
