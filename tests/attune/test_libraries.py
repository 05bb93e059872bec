"""Each library has a row in every table, and a model of each trains, is saved and opened again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.models.clip import Clip, load_clip
from attune.models.libraries import LIBRARIES
from attune.models.library import EMBEDS, Library
from attune.models.loaded import Loaded
from attune.models.sentence import ENCODERS, build_sentence
from attune.models.sentence_files import SentenceTokenizer, save
from attune.models.trainable import train_mode
from attune.settings import ModelOptions
from attune.training.step import backward
from attune.training.towers import Towers
from tests.attune.sentences import VOCABULARY, save_sentence, tokenizer
from tests.attune.test_each_clip import configured
from tests.attune.test_model_options import KINDS
from tests.attune.test_sentence import SIZES, SMALL

TEXTS = ["where is alpha north?", "red dog", "a", "yellow wolf"]
TINY: dict[str, Callable[[Path], Clip]] = {
    "mlp": lambda _: load_clip("mlp#scratch", seed=1, options=ModelOptions(input_dim=12, hidden_sizes=[8])),
    "open_clip": lambda folder: load_clip(f"{configured(folder, KINDS['vit'])}#scratch", seed=1),
    "sentence_transformers": lambda folder: load_clip(str(save_sentence(folder))),
    "timm": lambda _: load_clip("timm/test_resnet#scratch", seed=1, options=ModelOptions(image_size=64)),
}
"""A model of each library, given a folder to write to."""


def pixels(clip: Clip) -> np.ndarray:
    """Of four pictures, or four embeddings in their place."""
    if clip.input_dim:
        return np.random.default_rng(0).normal(size=(4, clip.input_dim)).astype(np.float32)
    return np.random.default_rng(0).integers(0, 256, (4, 3, *np.broadcast_to(clip.preprocess["size"], 2)), dtype=np.uint8)


def embeddings(clip: Clip) -> np.ndarray:
    found = [clip.encode_images(pixels(clip))] if "image" in clip.towers else []
    return np.concatenate([*found, *([clip.encode_texts(TEXTS)] if "text" in clip.towers else [])])


def train_two_steps(clip: Clip) -> None:
    """On four pairs: pictures with texts, or with others of their kind where there is one tower."""
    given: dict[str, Tensor] = {}
    if "image" in clip.towers:
        given["image"] = torch.from_numpy(pixels(clip))
    if "text" in clip.towers:
        given["text"] = clip.tokenizer(TEXTS)
    first, second = given[clip.towers[0]], given[clip.towers[-1]].roll(1, 0)
    towers = Towers(clip, "fp32")
    trained = [each for each in clip.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    torch.manual_seed(0)
    train_mode(clip.model)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = backward(
            towers.encode_images if "image" in clip.towers else towers.encode_texts,
            towers.encode_texts if "text" in clip.towers else towers.encode_images,
            first,
            second,
            lambda one, other: clip_loss(EmbeddedBatch(one, other, clip.model.logit_scale.exp())),
            model=clip.model,
        )
        gradients = [each.grad for each in trained if each.grad is not None]
        assert len(gradients) > len(trained) / 2
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] != losses[1]


def check_survives(clip: Clip, folder: Path) -> None:
    """Passes if the model, saved and opened again, is the same to the last bit."""
    clip.save_folder(folder)
    again = load_clip(str(folder))

    assert (again.config, again.preprocess, again.towers) == (clip.config, clip.preprocess, clip.towers)
    assert np.array_equal(embeddings(again), embeddings(clip))
    assert torch.equal(again.model.logit_scale, clip.model.logit_scale)


def test_every_library_is_in_every_table() -> None:
    assert {*LIBRARIES} == {*EMBEDS} == {*TINY} == {*get_args(Library)}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_of_each_library_trains_and_is_saved_and_opened(tmp_path: Path, library: Library) -> None:
    clip = TINY[library](tmp_path / "model")
    assert (clip.library, clip.towers) == (library, EMBEDS[library])
    before = embeddings(clip)

    train_two_steps(clip)

    assert np.abs(embeddings(clip) - before).max() > 1e-4
    check_survives(clip, tmp_path / "saved")


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_text_encoder_trains_and_is_saved_and_opened(tmp_path: Path, kind: str) -> None:
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    special |= {"cls_token_id": 2, "sep_token_id": 3} if kind == "modernbert" else {}
    sizes = {} if "t5" in kind or kind == "distilbert" else SIZES
    places = {} if "t5" in kind else {"max_position_embeddings": 40}
    given: Any = AutoConfig.for_model(kind, vocab_size=len(VOCABULARY), **sizes, **SMALL.get(kind, {}), **places, **special)
    config = {"context_length": 24, "pooler": "mean", "dense": [], "prompt": "", "lower_case": False, "embed_dim": 32}
    config |= {"library": "sentence_transformers", "transformer": given.to_dict()}
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    save(tmp_path / "model", Loaded(build_sentence(config), SentenceTokenizer(tokenizer(), config), config, {}))
    clip = load_clip(str(tmp_path / "model"))

    train_two_steps(clip)

    check_survives(clip, tmp_path / "saved")
