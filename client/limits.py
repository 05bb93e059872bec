"""What a client does when a service asks it to wait."""

import time
from collections.abc import Callable
from typing import TypeVar

from attune.errors import LimitExceeded

TRIES = 10
LONGEST_SECONDS = 60.0
Result = TypeVar("Result")


def when_allowed(call: Callable[[], Result]) -> Result:
    """What `call` returns, asked again as the service says while requests come too fast; nothing was done before.

    Raises:
        LimitExceeded: if the request is too large, or the service still says wait after ten times.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except LimitExceeded as refused:
            if not refused.seconds:
                raise
            time.sleep(min(refused.seconds, LONGEST_SECONDS))
    return call()


def limit_exceeded(message: str, retry_after: str | None) -> LimitExceeded:
    """The error with the seconds that the service named, if it did."""
    error = LimitExceeded(message)
    try:
        error.seconds = max(0.0, float(retry_after or 0))
    except ValueError:  # a date, from something between here and the service
        error.seconds = 1.0
    return error
