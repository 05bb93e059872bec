"""Every kind of CLIP that open_clip builds goes through all stages of a run, and its artifact opens by itself."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from attune.errors import ModelError
from attune.models.architecture import CONFIG, TEXT_TOWER
from attune.models.clip import load_clip, load_folder
from attune.report.card import model_card
from attune.schemas import DatasetReport, FinetuningRun
from attune.settings import ModelOptions
from attune.stages import STAGES, run_stage
from tests.attune.test_model_options import KINDS, ROBERTA, VIT
from tests.attune.trained import start
from tests.conftest import BACKGROUNDS, COLOURS, SHAPES, TINY_CONFIG

ON_HUB = {
    "vision_cfg": VIT,
    "text_cfg": {
        "hf_model_name": "nobody/tiny",
        "hf_tokenizer_name": "nobody/tiny",
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": 16,
    },
}
"""A CLIP whose text tower is one of the Hugging Face hub; this one is nowhere, so that nothing can ask for it."""

SMALLER = {"timm vit": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160}}
KINDS_OF_CLIP = {**KINDS, "timm vit": {**KINDS["timm vit"], "vision_cfg": SMALLER["timm vit"]}, "hugging face": ON_HUB}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def configured(folder: Path, model: dict[str, Any]) -> Path:
    """A folder with a configuration and no weights."""
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({**TINY_CONFIG, "model_cfg": {"embed_dim": 24, **model}}))
    if "hf_model_name" in model["text_cfg"]:
        (folder / TEXT_TOWER).write_text(json.dumps({**ROBERTA, "vocab_size": 40, "pad_token_id": 1}))
        words = ["<s>", "<pad>", "</s>", "<unk>", *COLOURS, *SHAPES, *BACKGROUNDS]
        own = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
        own.pre_tokenizer = Whitespace()
        special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        PreTrainedTokenizerFast(tokenizer_object=own, **special).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS_OF_CLIP)
def test_each_kind_of_clip_goes_through_all_stages(shapes: DatasetReport, offline: None, tmp_path: Path, kind: str) -> None:
    folder = configured(tmp_path / "model", KINDS_OF_CLIP[kind])

    run = start("each", f"{folder}#scratch", epochs=4, interpolation=False, check_pairs=False)
    for stage in STAGES:
        run_stage(stage, "each")

    done = run.load()
    assert done.state == "FINISHED"
    assert done.training.chosen != "start"
    assert done.artifact.max_difference < 1e-5
    again = load_folder(run.artifact)
    again.load_weights(run.chosen_weights)
    texts = ["a red circle", "a blue square"]
    assert np.array_equal(again.encode_texts(texts), load_folder(run.artifact).encode_texts(texts))
    assert (again.config | {"quick_gelu": None}) == (load_clip(f"{folder}#scratch").config | {"quick_gelu": None})


def test_a_text_tower_of_the_hub_is_told_in_the_artifact(offline: None, tmp_path: Path) -> None:
    """It opens with no hub here, and in open_clip where that is told to look."""
    clip = load_clip(f"{configured(tmp_path / 'model', ON_HUB)}#scratch", seed=1)
    texts = ["red circle", "blue"]

    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")
    told = clip.config["text_cfg"] | {"hf_model_name": str(tmp_path / "saved" / TEXT_TOWER), "hf_model_pretrained": False}
    by_open_clip = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}", text_cfg=told).eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'saved'}")(texts)

    assert TEXT_TOWER in model_card(FinetuningRun(name="mine", settings={"model": "x"}), clip.config)
    assert again.config["text_cfg"]["hf_model_name"] == "nobody/tiny"
    assert np.array_equal(again.encode_texts(texts), clip.encode_texts(texts))
    with torch.no_grad():
        np.testing.assert_allclose(by_open_clip.encode_text(tokens, normalize=True), clip.encode_texts(texts), atol=1e-6)
    shorter = load_clip(str(tmp_path / "saved"), options=ModelOptions(output_dim=12))
    assert shorter.encode_texts(texts).shape == (2, 12)
    assert shorter.config["text_cfg"]["hf_model_name"] == "nobody/tiny"

    (tmp_path / "saved" / TEXT_TOWER).unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        load_folder(tmp_path / "saved")


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"model_type": "evil"},
        {"num_hidden_layers": 10**6},
        {"vocab_size": 10**9},
        {"hidden_size": 16_384, "num_hidden_layers": 512, "intermediate_size": 65_536},
        {"hidden_size": "16"},
        {"model_type": "mt5", "d_model": 8192, "hidden_size": 8192, "num_attention_heads": 8192, "d_kv": 8192},
        {"model_type": "m2m_100", "encoder_layers": 8192},
        {"attn_implementation": "evil/kernel"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"dtype": "float16"},
    ],
)
def test_a_text_tower_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = configured(tmp_path / "model", ON_HUB)
    (folder / TEXT_TOWER).write_text(json.dumps({**ROBERTA, **change}))

    with pytest.raises(ModelError, match=rf"{TEXT_TOWER} cannot be used: "):
        load_clip(f"{folder}#scratch")
