"""Folders of open_clip: what their configuration says is checked entry by entry, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from attune.errors import ModelError
from attune.models.architecture import CONFIG
from attune.models.clip import load_clip
from attune.models.open_clip_entries import check_entries
from attune.models.source import STARTER, find_model
from tests.conftest import TINY_CONFIG

Config = dict[str, Any]


def entry(path: str, value: Any) -> Callable[[Config], None]:
    """Writes a value at a path such as `model_cfg.embed_dim`."""
    *parts, last = path.split(".")

    def change(config: Config) -> None:
        for part in parts:
            config = config[part]
        config[last] = value

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (entry("model_cfg.evil", 1), r"model_cfg\.evil: open_clip knows no such entry\. Take the folder as open_clip or"),
        (entry("model_cfg.embed_din", 1), r"model_cfg\.embed_din: .* \(did you mean 'embed_dim'\?\)"),
        (entry("model_cfg.output_dict", True), r"model_cfg\.output_dict: open_clip knows no such entry"),
        (entry("model_cfg.vision_cfg.evil", 1), r"model_cfg\.vision_cfg\.evil: open_clip knows no such entry"),
        (entry("model_cfg.text_cfg.hedas", 1), r"model_cfg\.text_cfg\.hedas: .* \(did you mean 'heads'\?\)"),
        (entry("model_cfg.multimodal_cfg", {"evil": 1}), r"model_cfg\.multimodal_cfg"),
        (entry("model_cfg.embed_dim", "32"), r"model_cfg\.embed_dim = '32' should be a valid integer"),
        (entry("model_cfg.embed_dim", True), r"model_cfg\.embed_dim = True should be a valid integer"),
        (entry("model_cfg.embed_dim", None), "open_clip builds no model of it"),
        (entry("model_cfg.vision_cfg.layers", "2"), r"model_cfg\.vision_cfg\.layers = '2' should be a valid"),
        (entry("model_cfg.vision_cfg.width", None), "a value in it is of another kind than it has to be"),
        (entry("model_cfg.vision_cfg.timm_model_name", "evil"), r"open_clip builds no model of it \(Unknown model"),
        (entry("model_cfg.text_cfg.heads", 7), "open_clip builds no model of it"),
        (entry("model_cfg.text_cfg", []), "model_cfg with the objects vision_cfg and text_cfg"),
        (entry("model_cfg", [1]), r"model_cfg = \[1\] has to be a JSON object"),
        (entry("preprocess_cfg", 1), r"preprocess_cfg = 1 has to be a JSON object"),
        (entry("preprocess_cfg.mean", "x"), r"preprocess_cfg\.mean = 'x' should be a valid array"),
        (
            entry("model_cfg.text_cfg.hf_tokenizer_name", "bert-base-cased"),
            r"it has no tokenizer: there is no tokenizer\.json",
        ),
        (dict.clear, "it needs a JSON object model_cfg"),
    ],
)
def test_a_configuration_that_open_clip_would_not_take_is_refused(
    tmp_path: Path, damage: Callable[[Config], None], said: str
) -> None:
    config = json.loads(json.dumps(TINY_CONFIG))
    damage(config)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=said) as refused:
        find_model(str(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / CONFIG} cannot be used: ")


def test_a_configuration_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(ModelError, match=rf"{CONFIG} holds a list, and has to hold a JSON object"):
        find_model(str(tmp_path))


def test_every_configuration_of_open_clip_passes() -> None:
    for architecture in open_clip.list_models():
        check_entries({"model_cfg": open_clip.get_model_config(architecture)})


def test_entries_about_pictures_that_open_clip_leaves_out_are_let_pass(tmp_path: Path) -> None:
    config = {**TINY_CONFIG, "preprocess_cfg": {**TINY_CONFIG["preprocess_cfg"], "other": 1}}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert find_model(str(tmp_path)).folder == tmp_path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, r"tokenizer\.json cannot be used: it has to have an object model and a list added_tokens"),
        ([], r"tokenizer\.json holds a list"),
        (None, "vocabulary is empty"),
    ],
)
def test_a_tokenizer_that_knows_no_words_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    folder = Path(shutil.copytree(STARTER, tmp_path / "copy"))
    if content is None:
        content = json.loads((folder / "tokenizer.json").read_text())
        marks = {one["content"] for one in content["added_tokens"]}
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = (
            {word: number for word, number in vocabulary.items() if word in marks}
            if isinstance(vocabulary, dict)
            else [row for row in vocabulary if row[0] in marks]
        )
        content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=said):
        load_clip(str(folder))
