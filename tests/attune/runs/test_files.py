from pathlib import Path

import pytest

from attune.errors import RunError, RunNotFound
from attune.files import sha256
from attune.runs.files import CHUNK_BYTES, read_chunk
from attune.schemas import FileChunk
from tests.attune.runs.made import create

pytestmark = pytest.mark.usefixtures("attune_home")


def test_a_file_comes_in_pieces_that_add_up() -> None:
    folder = create()
    data = bytes(range(256)) * 20_000  # 5.12 MB: more than one piece
    (folder.path / "artifact").mkdir()
    (folder.path / "artifact" / "weights").write_bytes(data)

    received, pieces, total = b"", 0, 1
    while len(received) < total:
        piece = read_chunk(FileChunk(run="first", path="artifact/weights", offset=len(received)))
        assert piece.sha256 == sha256(folder.path / "artifact" / "weights")
        received, pieces, total = received + piece.data, pieces + 1, piece.total

    assert received == data
    assert pieces == -(-len(data) // CHUNK_BYTES) == 2
    assert read_chunk(FileChunk(run="first", path="artifact/weights", offset=len(data))).data == b""


@pytest.mark.parametrize(
    "path",
    ["../second/run.json", "../../secret", "/etc/passwd", "absent", "", ".", "link", "artifact/../../second/run.json"],
)
def test_a_piece_cannot_come_from_outside_the_run(path: str, attune_home: Path) -> None:
    folder = create()
    create("second")
    (attune_home / "secret").write_text("secret")
    (folder.path / "link").symlink_to(attune_home / "secret")

    with pytest.raises(RunError, match="Run 'first' has no file"):
        read_chunk(FileChunk(run="first", path=path))


@pytest.mark.parametrize("name", ["", "..", "absent", "../runs/first"])
def test_a_piece_of_an_unknown_run_is_refused(name: str) -> None:
    create()

    with pytest.raises(RunNotFound, match="There is no run named"):
        read_chunk(FileChunk(run=name, path="run.json"))
