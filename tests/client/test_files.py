"""Downloads from a real service: broken off by SIGKILL and made again, damaged on the way, into folders with other files."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from attune.errors import RunError
from attune.runs.files import CHUNK_BYTES
from attune.schemas import Artifact, FinetuningRun
from client import AttuneClient
from client.files import download_file
from client.run import Run
from client.transport import Transport
from flows.background import Service
from tests.processes import wait_until

WEIGHTS = "open_clip_model.safetensors"
SIZE = 10 * CHUNK_BYTES + 12345


class Counting:
    """A transport that counts the bytes of files that come over another one, and may damage a piece."""

    def __init__(self, transport: Transport, damage: int = -1) -> None:
        self.address = transport.address
        self._transport = transport
        self.received = 0
        self.damage = damage

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        answer = self._transport.call(endpoint, documents, parameters)
        for chunk in answer if endpoint == "/runs/file" else []:
            self.received += len(chunk.data)
            if chunk.offset <= self.damage < chunk.offset + len(chunk.data):
                chunk.data = bytes(len(chunk.data))
                self.damage = -1
        return answer


def make_run(home: Path, contents: dict[str, bytes], **checksums: str) -> str:
    """A finished run with an artifact of these files, and its name; a checksum that is given is what the run says."""
    name = f"run-{uuid4().hex[:8]}"
    folder = home / "runs" / "default" / name
    (folder / "artifact").mkdir(parents=True)
    for file, content in contents.items():
        (folder / "artifact" / file).parent.mkdir(exist_ok=True)
        (folder / "artifact" / file).write_bytes(content)
    run = FinetuningRun(name=name, state="FINISHED", created_at="2026-01-01T00:00:00+00:00", settings={"train_data": "x"})
    run.artifact = Artifact(
        files={file: len(content) for file, content in contents.items()},
        checksums={file: hashlib.sha256(content).hexdigest() for file, content in contents.items()} | checksums,
    )
    (folder / "run.json").write_text(run.model_dump_json())
    return name


@pytest.fixture(scope="module")
def finished(home: Path, service: Service) -> str:
    """The name of a finished run with an artifact of 42 MB."""
    return make_run(home, {WEIGHTS: os.urandom(SIZE), "open_clip_config.json": b"{}", "README.md": b"# A model\n"})


def run_over(attune: AttuneClient, name: str, damage: int = -1) -> tuple[Run, Counting]:
    transport = Counting(attune._transport, damage)
    return Run(transport, attune.get_run(name).document), transport


def is_whole(folder: Path, run: Run) -> bool:
    checksums = run.document.artifact.checksums
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    return bool(found == checksums)


def test_a_download_whose_client_is_killed_fetches_only_the_rest(
    attune: AttuneClient, finished: str, tmp_path: Path, service: Service
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "client", "download", finished, "--to", str(tmp_path / "model")]
    process = subprocess.Popen([*command, "--url", attune._transport.address.url])
    part = tmp_path / "model" / f".{WEIGHTS}.part"
    assert wait_until(lambda: part.exists() and part.stat().st_size >= 2 * CHUNK_BYTES)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert 2 * CHUNK_BYTES <= had < SIZE
    assert not (tmp_path / "model" / WEIGHTS).exists()
    run, transport = run_over(attune, finished)

    run.save_artifact(tmp_path / "model", progress=False)

    assert is_whole(tmp_path / "model", run)
    assert SIZE - had <= transport.received <= SIZE - had + 100  # and the two small files


def test_a_whole_download_made_again_fetches_nothing(attune: AttuneClient, finished: str, tmp_path: Path) -> None:
    run, transport = run_over(attune, finished)
    run.save_artifact(tmp_path / "model", progress=False)
    transport.received = 0
    (tmp_path / "model" / "README.md").unlink()

    run.save_artifact(tmp_path / "model", progress=False)

    assert is_whole(tmp_path / "model", run)
    assert transport.received == len("# A model\n")


def test_a_part_that_is_damaged_on_the_disk_is_noticed_and_fetched_anew(
    attune: AttuneClient, finished: str, tmp_path: Path
) -> None:
    (tmp_path / f".{WEIGHTS}.part").write_bytes(os.urandom(CHUNK_BYTES))
    run, transport = run_over(attune, finished)

    run.save_artifact(tmp_path, progress=False)

    assert is_whole(tmp_path, run)
    assert transport.received >= SIZE + SIZE - CHUNK_BYTES


def test_a_piece_that_is_damaged_on_the_way_is_noticed_and_fetched_anew(
    attune: AttuneClient, finished: str, tmp_path: Path
) -> None:
    run, _ = run_over(attune, finished, damage=5 * CHUNK_BYTES)

    run.save_artifact(tmp_path, progress=False)

    assert is_whole(tmp_path, run)


def test_a_file_that_is_not_what_the_run_says_is_refused(attune: AttuneClient, home: Path, tmp_path: Path) -> None:
    name = make_run(home, {"weights": b"damaged", "config": b"{}"}, weights="0" * 64)

    with pytest.raises(RunError, match=r"artifact/weights .* arrived with SHA-256 .* instead of 0000"):
        attune.get_run(name).save_artifact(tmp_path, progress=False)

    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize("there", ["notes.txt", WEIGHTS, "folder"])
def test_a_folder_that_holds_other_files_is_left_as_it_is(
    attune: AttuneClient, finished: str, tmp_path: Path, there: str
) -> None:
    if there == "folder":
        (tmp_path / there).mkdir()
    else:
        (tmp_path / there).write_text("mine")
    run, transport = run_over(attune, finished)

    with pytest.raises(RunError, match=rf"holds other files \({there}\)\. Nothing was written"):
        run.save_artifact(tmp_path, progress=False)

    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert transport.received == 0


def test_a_link_in_the_place_of_a_part_is_not_followed(attune: AttuneClient, finished: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".README.md.part").symlink_to(tmp_path / "mine")
    run, _ = run_over(attune, finished)

    run.save_artifact(tmp_path / "model", progress=False)

    assert (tmp_path / "mine").read_text() == "mine"
    assert is_whole(tmp_path / "model", run)


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "/a", "a//b", "a/.hidden", ".hidden", ""])
def test_a_file_name_that_leads_elsewhere_is_refused(attune: AttuneClient, tmp_path: Path, home: Path, name: str) -> None:
    run = make_run(home, {}, **{name: "0" * 64})

    with pytest.raises(RunError, match="not downloaded"):
        attune.get_run(run).save_artifact(tmp_path / "model", progress=False)
    assert not (tmp_path / "model").exists()


def test_files_in_folders_arrive_in_folders_and_go_on_as_others_do(attune: AttuneClient, tmp_path: Path, home: Path) -> None:
    content = os.urandom(CHUNK_BYTES + 10)
    run, transport = run_over(attune, make_run(home, {"config.json": b"{}", "2_Dense/model.safetensors": content}))
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / ".model.safetensors.part").write_bytes(content[:CHUNK_BYTES])

    run.save_artifact(tmp_path, progress=False)
    run.save_artifact(tmp_path, progress=False)

    assert transport.received == 10 + len("{}")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("2_Dense", "2_Dense/model.safetensors", "config.json")
    ]
    assert (tmp_path / "2_Dense" / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("there", ["2_Dense/notes.txt", "2_Dense/inner"])
def test_other_files_in_a_folder_of_it_are_left_as_they_are(
    attune: AttuneClient, tmp_path: Path, home: Path, there: str
) -> None:
    (tmp_path / there).mkdir(parents=True)
    run, transport = run_over(attune, make_run(home, {"2_Dense/model.safetensors": b"weights"}))
    with pytest.raises(RunError, match=rf"holds other files \({there}\)"):
        run.save_artifact(tmp_path, progress=False)
    assert transport.received == 0


def test_a_link_in_the_place_of_a_folder_is_not_followed(attune: AttuneClient, tmp_path: Path, home: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "2_Dense").symlink_to(tmp_path / "mine")
    run, _ = run_over(attune, make_run(home, {"2_Dense/model.safetensors": b"weights"}))
    with pytest.raises(RunError, match=r"holds other files \(2_Dense\)"):
        run.save_artifact(tmp_path / "model", progress=False)
    assert not list((tmp_path / "mine").iterdir())


def test_a_single_file_goes_on_too(attune: AttuneClient, finished: str, tmp_path: Path, home: Path) -> None:
    content = (home / "runs" / "default" / finished / "artifact" / WEIGHTS).read_bytes()
    (tmp_path / ".weights.part").write_bytes(content[: 7 * CHUNK_BYTES])
    transport = Counting(attune._transport)

    download_file(transport, finished, f"artifact/{WEIGHTS}", tmp_path / "weights")

    assert (tmp_path / "weights").read_bytes() == content
    assert transport.received == SIZE - 7 * CHUNK_BYTES
