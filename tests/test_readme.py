"""The documents are run: the README's commands one after another in a shell, all Python as one script, tables compared."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attune.errors import AttuneError
from attune.losses.table import LOSSES
from attune.schemas import ENDPOINTS
from attune.service.settings import PREFIX, ServiceSettings
from attune.settings import FinetuningSettings
from attune.settings_table import settings_table
from executors.gateway.door import answer_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
SERVICES = {"flows/finetune.yml": 52000, "flows/search.yml": 52001}


def blocks(language: str, *texts: str) -> list[str]:
    return [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def test_settings_are_those_of_the_code() -> None:
    assert settings_table(FinetuningSettings) in DOCS["settings"]
    assert settings_table(ServiceSettings, PREFIX) in DOCS["service"]


def test_every_loss_is_told_of() -> None:
    table = DOCS["training"].partition("## Losses")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(LOSSES)


def test_errors_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", DOCS["service"], re.MULTILINE)
    assert rows == [
        (kind.__name__, str(answer_of(kind(""))[0]), (kind.__doc__ or "").splitlines()[0]) for kind in kinds(AttuneError)
    ]


def kinds(kind: type[AttuneError]) -> list[type[AttuneError]]:
    return [kind, *(below for each in kind.__subclasses__() if each.__name__[0] != "_" for below in kinds(each))]


def test_figures_are_those_that_the_benchmarks_wrote() -> None:
    quality, throughput, retrieval = (
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        for name in ("recipe_quality", "training_throughput", "retrieval")
    )
    for side in ("attune", "clip_benchmark"):
        assert f"{retrieval['seconds'][side]:.1f} s and {retrieval['peak_memory_mib'][side]} MiB" in README
    large = json.loads((ROOT / "benchmarks" / "results" / "retrieval_200000.json").read_text())
    figures = (
        f"{large['seconds']['attune']:.0f} s and {large['peak_memory_mib']['attune']} MiB, {large['time_of_the_product']}"
    )
    told = " ".join(README.split())
    assert f"{figures} times the bare product" in told
    for line in quality["sets"]["emoji"]["table"][4:]:
        assert f"\n{line}\n" in README
    photographs = quality["sets"]["flickr8k_pretrained_on_3000"]["arms"]
    for name, arm in photographs.items():
        assert f"`{name}` {arm['recall']['text_to_image']:.3f} and {arm['recall']['image_to_text']:.3f}" in told
    for low, high in photographs["plain"]["attune_minus_this_interval"].values():
        assert f"{low:+.3f} to {high:+.3f}" in told
    for model in throughput["models"]:
        sides = [model[side] for side in ("attune", "open_clip")]
        speeds = " | ".join(f"{side['captions_per_second']:.1f}" for side in sides)
        memory = " and ".join(f"{side['peak_memory_mib'] / 1024:.1f}" for side in sides)
        assert f"\n| `{model['model']}` | {speeds} | {model['ratio']:.1f} | {memory} |\n" in README


def test_the_load_is_the_one_that_was_measured() -> None:
    load = json.loads((ROOT / "benchmarks" / "results" / "service_load.json").read_text())
    calls = load["milliseconds"]
    told = " ".join(DOCS["service"].split())
    assert not load["errors"]
    assert not load["hung"]
    assert f"none of {sum(one['calls'] for one in calls.values()):,} calls" in told
    lists, events, pushes = (f"{calls[path]['p95'] / 1000:.1f} s" for path in ("/runs/list", "/runs/events", "/push"))
    assert f"lists were answered within {lists}, pages of events within {events} and pushes within {pushes}" in told
    assert f"{1 - load['training_slowdown']:.2f}" == "0.13"  # an eighth


def test_every_endpoint_of_the_table_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|") and "`/" in line]
    named = {path for row in rows for path in re.findall(r"`(/[a-z/]+)`", row)}
    assert named
    assert named <= set(ENDPOINTS)


def test_every_path_it_names_exists() -> None:
    texts = "\n".join([README, *DOCS.values()])
    paths = re.findall(r"`((?:attune|executors|flows|client|k8s|examples|docs|benchmarks)/[\w/.]+)`", texts)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_make_targets_it_names_exist() -> None:
    targets = set(re.findall(r"make ([a-z0-9-]+)", README))
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "test"} <= targets
    assert [target for target in targets if f"make {target} " not in known] == []


@pytest.mark.slow
def test_every_command_and_script_runs(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "ATTUNE_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JINA_OPTOUT_TELEMETRY": "1",
        "PYTHONWARNINGS": "ignore",
    }
    # The commands start in the repository root and write beside it; here the root is a folder of links to it.
    for entry in (entry for entry in ROOT.iterdir() if not entry.name.startswith(".")):
        (tmp_path / entry.name).symlink_to(entry)
    start_finetuning, *commands, start_search, search = blocks("bash", README)
    with served(start_finetuning, tmp_path, environment):
        for command in commands:
            run(["bash", "-euc", command], tmp_path, environment)
        script = "\n".join(blocks("python", README, *DOCS.values())).replace(
            'save_artifact("tuned")', 'save_artifact("tuned-by-script")'
        )
        printed = run([sys.executable, "-c", script], tmp_path, environment)
        assert "state FINISHED" in printed
        assert "recall@5" in printed
    with served(start_search, tmp_path, environment):
        assert "cat" in run(["bash", "-euc", search], tmp_path, environment)
    assert (tmp_path / "tuned" / "open_clip_model.safetensors").exists()
    shutil.rmtree(tmp_path / "home")


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def served(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Runs a `jina flow` line of the README until the block ends, then stops it as Ctrl+C would."""
    flow = next(name for name in SERVICES if name in command)
    process = subprocess.Popen(
        ["bash", "-c", f"exec env {command.strip()}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} did not come up"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{SERVICES[flow]}", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"@[A-Z_]+@", "\n".join([README, *DOCS.values()])) == []
