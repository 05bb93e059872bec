"""What processes do that tests start: who belongs to whom, and on which addresses they listen."""

import ipaddress
import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def descendants(pid: int) -> list[int]:
    """The process, its children, and theirs."""
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return [pid]


def listening(pids: list[int]) -> dict[int, str]:
    """The TCP ports on which the processes listen, each with its address."""
    found = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            sockets = psutil.Process(pid).net_connections("tcp")
            found |= {one.laddr.port: one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


def is_loopback(address: str) -> bool:
    """Whether it is this machine's own, also as IPv6 writes an IPv4 address."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody took note of does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it came true in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()
