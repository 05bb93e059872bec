"""Memory that is kept in a process."""

import subprocess
import sys

STEPS = """
import resource, sys, torch
from attune.__main__ import main
if sys.argv.pop() == "kept":
    main()  # says how it is used, for no stage is named
def step():
    blocks = [torch.ones(size) for size in (1 << 22, 1 << 24, 1 << 20)]  # floats: 84 MiB in all
for _ in range(10):  # until freed blocks fit: the first few steps still grow the heap, how many depends on its address
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    faults = {
        kept: int(subprocess.run([sys.executable, "-c", STEPS, kept], check=True, capture_output=True).stdout)
        for kept in ("kept", "given back")
    }
    assert faults["kept"] * 5 < faults["given back"]
