"""Text encoders by their names on the Hugging Face hub, read from a cache as huggingface_hub leaves it: no network."""

import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from attune.config import check_settings
from attune.errors import ModelError
from attune.models.clip import load_clip
from attune.models.hub import cached_folder, hub_folder, weight_files
from attune.models.source import ModelSource, find_model
from attune.room import count
from attune.runs.models import locate
from tests.attune.runs.made import create
from tests.attune.sentences import save_sentence

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, repository: str) -> Path:
    """Fills the cache with a tiny model, as links to what it holds; and the folder that they lead to."""
    place = cache / f"models--{repository.replace('/', '--')}"
    folder = save_sentence(cache / "made" / repository)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        link = place / "snapshots" / COMMIT / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(path, link.parent))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.mark.parametrize("name", ["a--b/c", "a/b.", "a/b.git", f"a/{'b' * 100}"])
def test_names_that_the_hub_cannot_have_are_refused(cache: Path, name: str) -> None:
    assert cached_folder(name) is None
    with pytest.raises(ModelError, match="Check the name"):
        hub_folder(name, weights=False)


def test_names_on_the_hub() -> None:
    bert = ModelSource(library="sentence_transformers", hub="google-bert/bert-base-cased")
    assert find_model("bert-base-cased") == find_model("bert-base-en") == bert
    assert find_model("someone/some-model").hub == "someone/some-model"
    assert find_model("someone/some-model#scratch").scratch
    assert find_model("ViT-B/32#openai").library == "open_clip"
    for name in (
        "someone/some-model#tag",
        "someone/some/model",
        "some-model",
        "../some-model",
        "./some-model",
        "/some/model",
    ):
        with pytest.raises(ModelError, match="There is no model named"):
            find_model(name)


def test_where_others_ask_only_those_of_the_catalogue_are_fetched(tmp_path: Path) -> None:
    assert find_model("bert-base-en", (tmp_path,)).hub
    assert find_model("sentence-transformers/all-MiniLM-L6-v2", (tmp_path,)).hub
    with pytest.raises(ModelError, match="There is no model named 'someone/some-model'"):
        find_model("someone/some-model", (tmp_path,))


def test_a_model_that_was_fetched_is_read_from_the_cache(cache: Path) -> None:
    folder = put(cache, "google-bert/bert-base-cased")

    found = load_clip("bert-base-en").encode_texts(["red dog"])

    assert cached_folder("google-bert/bert-base-cased") is not None
    assert np.array_equal(found, load_clip(str(folder)).encode_texts(["red dog"]))
    assert not np.allclose(load_clip("bert-base-en#scratch", seed=1).encode_texts(["red dog"]), found, atol=1e-3)
    assert count(check_settings({"model": "bert-base-en", "eval_data": "any"})) is not None


def test_what_is_not_here_and_cannot_be_fetched_says_what_to_do(cache: Path) -> None:
    with pytest.raises(
        ModelError, match=r"'someone/else' is not on this machine, .*Check the name and the network, or copy"
    ):
        load_clip("someone/else")
    assert count(check_settings({"model": "someone/else", "eval_data": "any"})) is None


def test_a_fetch_that_was_broken_off_does_not_count(cache: Path) -> None:
    put(cache, "someone/else")
    (cache / "models--someone--else" / "snapshots" / COMMIT / "model.safetensors").unlink()

    assert cached_folder("someone/else") is None
    shutil.rmtree(cache)
    assert cached_folder("someone/else") is None


def test_a_run_of_that_name_comes_first(attune_home: Path) -> None:
    create("mine", "FINISHED", experiment="someone", settings={"model": "starter", "train_data": "shapes"})
    artifact = attune_home / "runs" / "someone" / "mine" / "artifact"
    artifact.mkdir()

    assert locate("someone/mine") == str(artifact)
    assert locate("someone/else") == "someone/else"


def test_weights_are_taken_once_as_safetensors_where_they_are() -> None:
    files = ["model.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/model.safetensors", "tf_model.h5"]
    assert weight_files(files) == ["model.safetensors", "2_Dense/pytorch_model.bin"]
    assert weight_files(["pytorch_model.bin", "config.json"]) == ["pytorch_model.bin"]
