"""The demo keeps its promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import QUERIES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_demo_gains_on_held_out_emoji_in_both_directions(tmp_path: Path) -> None:
    for entry in (entry for entry in ROOT.iterdir() if not entry.name.startswith(".")):
        (tmp_path / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "examples.demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    figures = json.loads((tmp_path / ".demo" / "noto-clip" / "metrics.json").read_text())
    before, after = figures["before"], figures["after"]
    assert after["text_to_image_recall@5"] - before["text_to_image_recall@5"] >= 0.10
    assert after["image_to_text_recall@5"] >= before["image_to_text_recall@5"]
    assert (tmp_path / ".demo" / "report.html").stat().st_size > 100_000
    assert "state TRAINING" in done.stdout  # told while it trains: there is no terminal for a progress bar
    for query in QUERIES:
        assert f"{query}: " in done.stdout
