"""How much the gateway holds at once: a request takes several times its size of memory while it is passed on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attune.errors import LimitExceeded
from attune.service.settings import service_settings

SMALL = 10**6
AT_ONCE = 8
WAITING = 8
"""Times the largest request: so many bytes may wait for their turn."""
LATER_SECONDS = 2.0


class Room:
    """Requests of more than `SMALL` bytes take turns, `AT_ONCE` of them; smaller ones pass."""

    def __init__(self) -> None:
        self.limit = WAITING * service_settings().max_request
        self.held = 0
        self.turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Waits for the turn of a request of this many bytes, which lasts as long as the block.

        Raises:
            LimitExceeded: if too much waits already, with the seconds after which to ask again.
        """
        if size <= SMALL:
            yield
            return
        if self.held + size > self.limit:
            error = LimitExceeded(f"The service is busy with {self.held:,} bytes of other requests. Wait, and ask again")
            error.seconds = LATER_SECONDS
            raise error
        self.held += size
        try:
            async with self.turns:
                yield
        finally:
            self.held -= size
