"""Keeps a Flow to this machine. Flow files name this module under `py_modules`: Jina imports it before it starts anything.

Left alone, Jina reports every start to its makers, asks three servers on the internet for this machine's address, offers
metrics to the whole network, leaves its processes running when it is ended itself, and fills the log with itself. None of
it has a setting that a Flow file could hold. In a cluster each pod runs one process and no Flow, so nothing of this applies
there.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from attune.errors import AttuneError

LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # of Linux' prctl(2): a signal for this process when its parent ends, in whatever way


def keep_local() -> None:
    """Changes this process, and all that are forked from it."""
    os.environ["JINA_OPTOUT_TELEMETRY"] = "1"
    os.environ.setdefault("JINA_LOG_LEVEL", "ERROR")  # the rest is of Jina's own doings: 500 lines at a slow start
    # Executors listen on random ports; those above this one are not given to outgoing connections before they do.
    os.environ.setdefault("JINA_RANDOM_PORT_MIN", "61000")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a lost connection is an error of ours, not a line of gRPC's
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "200")  # else a log breaks its lines at 80
    import jina.orchestrate.orchestrator as orchestrator
    import prometheus_client

    orchestrator.get_public_ip = lambda *_, **__: None
    orchestrator.get_internal_ip = lambda: LOOPBACK
    # Jina imports it by this name whenever it starts a metrics server, and passes no address.
    prometheus_client.start_http_server = partial(prometheus_client.start_http_server, addr=LOOPBACK)
    os.register_at_fork(after_in_child=end_with_parent)
    logging.getLogger("asyncio").addFilter(_is_news)
    logging.setLogRecordFactory(partial(_record, logging.getLogRecordFactory()))


def _record(make: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any) -> logging.LogRecord:
    """A line of the log; of errors that Attune raised on purpose, as it refused a request, without the traceback."""
    record = make(*args, **kwargs)
    if record.exc_info and isinstance(record.exc_info[1], AttuneError):
        record.exc_info = None
        record.msg = str(record.msg).partition("\n add ")[0]  # Jina's hint at what would silence all others too
    return record


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a call within the Flow was broken off, which whoever called is told: each stop of the service does it."""
    return not (record.exc_info and type(record.exc_info[1]).__name__ == "InternalNetworkError")


def end_with_parent() -> None:
    """Asks the kernel to send this process SIGTERM when the one that started it ends, were it by SIGKILL. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


keep_local()
