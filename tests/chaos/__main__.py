"""Inflicts every fault on a real service, each on a run of its own, and prints what was survived: `make chaos`."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.stage import prepared


def main() -> int:
    """Returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="times that each fault is inflicted")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    table = Table("fault", "injected", "survived", "lost", "seconds to the run's end", title="Faults while a run is at work")
    lost = 0
    with tempfile.TemporaryDirectory(prefix="attune-chaos-") as folder, prepared(Path(folder)) as stage:
        for name in options.faults:
            if reason := stage.cannot(name):
                table.add_row(name, "0", "", "", reason)
                continue
            bad, seconds = 0, []
            for number in range(options.rounds):
                start = time.monotonic()
                found = stage.play([name], f"{name.replace(' ', '-').replace(',', '')}-{number}", chance)
                seconds.append(time.monotonic() - start)
                bad += bool(found)
                print(f"{name}: {'; '.join(found) or 'survived'}, {seconds[-1]:.0f} s", flush=True)
            lost += bad
            table.add_row(name, *map(str, (len(seconds), len(seconds) - bad, bad)), f"{max(seconds):.0f}")
    Console(width=120).print(table)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
