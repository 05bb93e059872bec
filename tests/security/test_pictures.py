"""Hostile pictures: each is refused or read, within bounds of memory and time that hold for all of them."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.security.pictures import hostile

MEMORY = 1_300 * 10**6
"""Bytes for one picture beside its file: of `MAX_PIXELS` in four bytes each, about three copies."""
SECONDS = 30.0
"""Of processor time; on an idle machine the slowest takes a tenth of it."""

ACCEPTED = {
    "png that unpacks into more than it says",
    "png of 4 billion frames",
    "png that is also a zip",
    "png that is also html",
    "png of pixels as many as are accepted",
    "jpeg of pixels as many as are accepted",
    "jpeg with exif in a circle",
    "jpeg with exif of gigabytes",
    "tiff of 20,000 pages in a circle",
}
"""There is a picture in them that can be shown; the rest is refused."""

# Decodes one picture after the other, and tells what became of each, how long it took and how much more memory it had.
# Linux resets its note of the most memory when 5 is written to clear_refs. A picture that needs far more than is allowed
# ends the process.
SCRIPT = f"""
import json, re, resource, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from attune.data.images import decode
from tests.security.pictures import hostile, small

def memory(which):
    return 1024 * int(re.search(which + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

decode(small("PNG")), decode(small("JPEG")), decode(small("WEBP"))
resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2 * {MEMORY},) * 2)
for name, make in hostile().items():
    data = make()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.process_time()
    try:
        said = "x".join(map(str, decode(data).size))
    except ValueError as error:
        said = str(error)
    figures = dict(bytes=len(data), peak=memory("VmHWM") - before, seconds=time.process_time() - start)
    print(json.dumps(dict(name=name, said=said, **figures)), flush=True)
"""


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=900)
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    for name, line in lines.items():
        print(f"{name}: {line['bytes']:,} bytes, {line['peak'] / 1e6:.0f} MB, {line['seconds']:.2f} s, {line['said']}")
    assert done.returncode == 0, f"after {[*lines][-1:]}: {done.returncode} {done.stderr[-1000:]}"
    return lines


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_picture_does_no_harm(found: dict[str, dict[str, Any]], name: str) -> None:
    one = found[name]
    assert one["peak"] < MEMORY
    assert one["seconds"] < SECONDS
    is_read = one["said"].replace("x", "").isdigit()
    assert is_read == (name in ACCEPTED), one["said"]
