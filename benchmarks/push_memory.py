"""Peak memory of a push, on both sides, by the size of what is pushed: it must not grow with it.

Every size has a service and a client of its own. The pictures are small JPEGs with random bytes after their end, so that
they are as many bytes as photographs and decode in a moment.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.machine import RESULTS, command_line, describe_machine, write_result
from benchmarks.processes import family
from flows.background import Service, running, small_flow

PICTURE_BYTES = 200_000
ROWS_AT_ONCE = 100


def write_pictures(path: Path, size: int) -> None:
    """A Parquet file with about `size` bytes of pictures, each different, and a caption each."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    start = buffer.getvalue()
    schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for first in range(0, max(1, size // PICTURE_BYTES), ROWS_AT_ONCE):
            numbers = range(first, min(first + ROWS_AT_ONCE, max(1, size // PICTURE_BYTES)))
            images = [start + rng.bytes(PICTURE_BYTES - len(start)) for _ in numbers]
            writer.write_table(pa.table([images, [f"picture {number}" for number in numbers]], schema=schema))


def measure(size: int, protocol: str, folder: Path) -> dict[str, float]:
    """Pushes that many bytes to a new service.

    Args:
        size: bytes of pictures.
        protocol: `grpc` or `http`.
        folder: an empty one; everything is kept there.

    Returns:
        Peak memory in MiB of the `client`, the `gateway` and the `data_validator`, and the `seconds` that it took.

    Raises:
        RuntimeError: if the push fails.
    """
    data = folder / "pictures.parquet"
    write_pictures(data, size)
    with running(small_flow(folder), folder / "home", folder / "service.log") as service:
        start = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-m", "client", "push", "--name", "pictures", "--data", str(data)]
        process = os.posix_spawn(sys.executable, [*command, "--url", getattr(service, protocol)], os.environ)
        _, status, used = os.wait4(process, 0)
        if status:
            raise RuntimeError(f"The push ended with {os.waitstatus_to_exitcode(status)}")
        seconds = time.monotonic() - start
        peaks = {name: _peak(pid) for name, pid in _processes(service).items()}
    return {"client": used.ru_maxrss / 1024, **peaks, "seconds": round(seconds, 1)}


def _processes(service: Service) -> dict[str, int]:
    """The processes that listen on the gateway's port and on the DataValidator's metrics port."""
    ports = {service.port: "gateway", service.monitoring_port + 2: "data_validator"}
    return {
        ports[one.laddr.port]: process.pid
        for process in family(service.process.pid)
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port in ports
    }


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Pushes each size over each protocol and writes what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.25, 2.0], help="sizes, the smallest first")
    parser.add_argument("--protocols", nargs="+", default=["grpc", "http"], choices=["grpc", "http"])
    parser.add_argument("--out", type=Path, default=RESULTS / "push_memory.json")
    options = parser.parse_args()
    machine = describe_machine()
    found = []
    for protocol in options.protocols:
        for size in options.gigabytes:
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(int(size * 10**9), protocol, Path(folder))
            found.append(
                {"protocol": protocol, "gigabytes": size, **{name: round(value) for name, value in figures.items()}}
            )
            print(json.dumps(found[-1]), flush=True)
    content = {"command": command_line("push_memory", sys.argv[1:]), "machine": machine, "peak_memory_mib": found}
    write_result(options.out, content)


if __name__ == "__main__":
    main()
