"""Files and messages that would run code if they were unpickled, through every door: nothing is ever run."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from jina.proto import jina_pb2

from attune.data.pixels import PixelCache
from attune.data.read import read_examples
from attune.errors import DataError, ModelError
from attune.evaluation.kept_ranks import unpack
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.training.checkpoints import Checkpoints
from flows.background import Service
from tests.conftest import TINY_CONFIG

ARCHITECTURE = "ViT-S-32-alt"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def torch_zip(evil: Evil) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(2), "evil": evil}}, buffer)
    return buffer.getvalue()


def torch_legacy(evil: Evil) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "evil": evil}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def plain_pickle(evil: Evil) -> bytes:
    return pickle.dumps({"state_dict": evil}, protocol=2)  # torch warns of any other


def numpy_objects(evil: Evil) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([evil, 1], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def numpy_archive(evil: Evil) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, text_to_image_after=np.array([evil, 1], dtype=object))
    return buffer.getvalue()


MADE: list[Callable[[Evil], bytes]] = [torch_zip, torch_legacy, plain_pickle, numpy_objects, numpy_archive]
each = pytest.mark.parametrize("make", MADE)


@pytest.fixture(autouse=True, params=[False, True], ids=["plain", "where torch was told to unpickle"])
def mark(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where code that is run leaves its mark, looked at after each test."""
    if request.param:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "something was unpickled"


def test_the_payload_is_real(tmp_path: Path) -> None:
    for make in (torch_zip, torch_legacy):
        torch.load(io.BytesIO(make(Evil(tmp_path / make.__name__))), weights_only=False)
        assert (tmp_path / make.__name__).is_dir()
    pickle.loads(plain_pickle(Evil(tmp_path / "plain")))
    assert (tmp_path / "plain").is_dir()


@each
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.npz", "weights.bin"])
def test_a_checkpoint(tmp_path: Path, mark: Path, make: Callable[[Evil], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(make(Evil(mark)))
    with pytest.raises(ModelError):
        load_clip(f"{ARCHITECTURE}#{tmp_path / name}")


@each
@pytest.mark.parametrize(
    "name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin", "model.safetensors"]
)
def test_a_model_folder(tmp_path: Path, mark: Path, make: Callable[[Evil], bytes], name: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    (tmp_path / name).write_bytes(make(Evil(mark)))
    with pytest.raises(ModelError):
        load_clip(str(tmp_path))


@each
@pytest.mark.parametrize("name", ["last.pt", "within.pt"])
def test_the_checkpoint_of_a_run(tmp_path: Path, mark: Path, make: Callable[[Evil], bytes], name: str) -> None:
    checkpoints = Checkpoints(RunFolder(tmp_path / "run"))
    checkpoints.last.parent.mkdir(parents=True)
    (checkpoints.last.parent / name).write_bytes(make(Evil(mark)))
    with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError, KeyError)):
        checkpoints.restore(torch.device("cpu"))


@each
def test_arrays(tmp_path: Path, mark: Path, make: Callable[[Evil], bytes]) -> None:
    with pytest.raises((ValueError, OSError, KeyError)):
        unpack(make(Evil(mark)))["text_to_image_after"]
    (tmp_path / "pixels.npy").write_bytes(make(Evil(mark)))
    (tmp_path / "pixels.json").write_text("[]")
    with pytest.raises((ValueError, AttributeError, OSError)):
        PixelCache(tmp_path / "pixels.npy").pixels.shape  # noqa: B018


@each
@pytest.mark.parametrize("name", ["data.parquet", "data.csv", "data.pkl", "data.npy", "data.bin"])
def test_data_to_push(tmp_path: Path, mark: Path, make: Callable[[Evil], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(make(Evil(mark)))
    with pytest.raises(DataError):
        list(read_examples(tmp_path / name))


@pytest.mark.parametrize("make", [plain_pickle, torch_zip])
def test_documents_of_a_request(open_service: Service, mark: Path, make: Callable[[Evil], bytes]) -> None:
    request = jina_pb2.DataRequestProto()
    request.header.exec_endpoint = "/push"
    request.data.docs_bytes = make(Evil(mark))
    with grpc.insecure_channel(f"127.0.0.1:{open_service.port}") as channel:
        ask = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
        refused = ask.future(request.SerializeToString(), timeout=300).exception()
    assert dict(refused.trailing_metadata())["attune-error"] == "DataError"
