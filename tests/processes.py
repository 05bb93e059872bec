"""What processes do that tests start: who belongs to whom, and on which addresses they listen. Linux only."""

import ipaddress
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"


def descendants(pid: int) -> list[int]:
    """The process, its children, and theirs."""
    found = [pid]
    for child in (int(number) for task in Path(f"/proc/{pid}/task").glob("*/children") for number in _read(task).split()):
        found += descendants(child)
    return found


def listening(pids: list[int]) -> dict[int, str]:
    """The TCP ports on which the processes listen, each with its address."""
    found = {}
    sockets = {link for pid in pids for link in _open_files(pid)}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in sockets:
                host, port = fields[1].split(":")
                found[int(port, 16)] = _address(host)
    return found


def is_loopback(address: str) -> bool:
    """Whether it is this machine's own, also as IPv6 writes an IPv4 address."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody took note of does not."""
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it came true in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def _open_files(pid: int) -> list[str]:
    found = []
    with suppress(OSError):  # the process ended meanwhile
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(str(entry.readlink()))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _address(text: str) -> str:
    """The kernel writes addresses in hexadecimal, four bytes at a time, the last byte first."""
    raw = bytes.fromhex(text)
    return str(ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))))
