"""What lies in a model's folder and is no file: whoever opens it might wait for ever, or read without end."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from attune.errors import ModelError
from attune.models.clip import load_clip
from attune.models.source import find_model
from attune.models.untrusted import read_json
from tests.attune.sentences import save_sentence


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = pytest.mark.parametrize("put", [pipe, endless])


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence(tmp_path_factory.mktemp("folder") / "bert")


def copy_with(put: Callable[[Path], None], file: str, folder: Path, place: Path) -> Path:
    """A copy of a model folder in which one file is what `put` makes there."""
    copy = Path(shutil.copytree(folder, place / "copy"))
    path = copy / file
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    put(path)
    return copy


@SPECIAL
@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "model.safetensors",
        "pytorch_model.bin",
        "1_Pooling/config.json",
        "additional_chat_templates/a.jinja",
    ],
)
def test_a_text_encoder_with_a_special_file_is_refused(
    sentence: Path, tmp_path: Path, put: Callable[[Path], None], file: str
) -> None:
    folder = copy_with(put, file, sentence, tmp_path)
    for ask in (find_model, load_clip):
        with pytest.raises(ModelError, match=f"{file} is no regular file, but a pipe, a socket or a device"):
            ask(str(folder))


@SPECIAL
@pytest.mark.parametrize(
    "file",
    [
        "open_clip_config.json",
        "text_tower_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "config.json",
        "mlp_config.json",
    ],
)
def test_any_other_folder_with_a_special_file_is_refused(
    tiny_model: Path, tmp_path: Path, put: Callable[[Path], None], file: str
) -> None:
    folder = copy_with(put, file, tiny_model, tmp_path)
    with pytest.raises(ModelError, match=f"{file} is no regular file"):
        find_model(str(folder))


@SPECIAL
def test_a_special_file_is_no_model_and_no_checkpoint(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "model")
    with pytest.raises(ModelError, match="is no folder"):
        find_model(str(tmp_path / "model"))
    with pytest.raises(ModelError, match="no such file exists"):
        find_model(f"ViT-B-32#{tmp_path / 'model'}")
    with pytest.raises(ValueError, match="is no regular file"):
        read_json(tmp_path / "model")


def test_links_to_files_and_links_that_lead_nowhere_are_let_pass(sentence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    for path in sentence.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "circle").symlink_to(folder / "circle")
    assert find_model(str(folder)).folder == folder
