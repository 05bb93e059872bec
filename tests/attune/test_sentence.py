"""Text encoders of transformers: what they embed, how they are cut, adapted and changed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig

from attune.errors import SettingsError
from attune.models.checkpointing import checkpoint_gradients
from attune.models.clip import Clip, config_of, load_clip
from attune.models.layers import blocks, layer_scales
from attune.models.lora import add_lora, merge_lora
from attune.models.options import changed_config, check_options
from attune.models.pooling import POOLERS
from attune.models.sentence import ENCODERS, build_sentence
from attune.models.shell import shell
from attune.models.source import find_model
from attune.models.text import encode_by_length, encode_text, trim
from attune.models.trainable import choose_trainable
from attune.settings import ModelOptions
from attune.training.step import backward
from tests.attune.sentences import save_plain, save_sentence, token_embeddings, write

TEXTS = ["where is alpha north?", "red dog", "a", "[PAD] bear, all [PAD]", "", "yellow wolf " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence(tmp_path_factory.mktemp("sentence") / "bert")


@pytest.fixture
def clip(folder: Path) -> Clip:
    return load_clip(str(folder))


def expected(folder: Path, texts: list[str], length: int = 32) -> np.ndarray:
    """Transformers, one text at a time, and a mean."""
    means = torch.stack([token_embeddings(folder, text, length).mean(0) for text in texts])
    found: np.ndarray = F.normalize(means, dim=-1).numpy()
    return found


def test_embeddings_are_those_of_transformers_and_a_mean(folder: Path, clip: Clip) -> None:
    found = clip.encode_texts(TEXTS)

    np.testing.assert_allclose(found, expected(folder, TEXTS), atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(TEXTS, batch_size=1), found, atol=1e-6)
    assert clip.towers == ("text",)
    assert clip.config["embed_dim"] == 32


def test_a_plain_encoder_is_read_up_to_what_its_tokenizer_says(tmp_path: Path) -> None:
    folder = save_plain(tmp_path / "plain")

    clip = load_clip(str(folder))

    assert (clip.config["context_length"], clip.config["pooler"]) == (40, "mean")
    np.testing.assert_allclose(clip.encode_texts(TEXTS), expected(folder, TEXTS, 40), atol=1e-6)


def test_weights_that_torch_wrote_are_read_as_well(tmp_path: Path, folder: Path, clip: Clip) -> None:
    copy = save_plain(tmp_path / "old")
    (copy / "model.safetensors").unlink()
    torch.save(clip.model.text.transformer.state_dict(), copy / "pytorch_model.bin")

    np.testing.assert_allclose(load_clip(str(copy)).encode_texts(TEXTS[:3]), expected(folder, TEXTS[:3]), atol=1e-6)


@pytest.mark.parametrize("pooler", POOLERS)
def test_texts_that_are_cut_to_the_longest_teach_the_same(folder: Path, pooler: str) -> None:
    clip = load_clip(str(folder), options=ModelOptions(pooler=pooler))
    tokens = F.pad(clip.tokenizer(TEXTS[:4] * 10), (0, 10))
    cut = trim(tokens, clip.model)
    assert cut.shape[1] == tokens.shape[1] - 10
    gradients = []
    for encode, given in ((encode_text, tokens), (encode_text, cut), (encode_by_length, tokens)):
        clip.model.zero_grad()
        found = encode(clip.model, given)
        (found * torch.linspace(0, 1, 32)).sum().backward()
        gradients.append({name: each.grad for name, each in clip.model.named_parameters() if each.grad is not None})
        gradients[-1]["found"] = found.detach()

    assert found.isfinite().all()
    for other in gradients[1:]:
        for name, value in gradients[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_pieces_of_a_batch_draw_the_same_dropout_twice(clip: Clip) -> None:
    tokens = clip.tokenizer(TEXTS[:4])
    clip.model.train()
    assert any(module.p > 0 for module in clip.model.modules() if isinstance(module, torch.nn.Dropout))
    seen: list[torch.Tensor] = []

    def encode(rows: torch.Tensor) -> torch.Tensor:
        seen.append(encode_text(clip.model, rows))
        return seen[-1]

    backward(encode, encode, tokens, tokens, lambda one, other: (one * other.roll(1, 0)).sum(), 2, clip.model)

    first, again = seen[:4], seen[4:]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[2])  # of the same texts, in another pass


def test_layers_learn_at_their_own_rates(clip: Clip) -> None:
    scales = layer_scales(clip.model, 0.5)

    assert blocks(clip.model, "text") == 2
    assert scales["text.transformer.embeddings.word_embeddings.weight"] == 0.125
    assert scales["text.transformer.encoder.layer.0.output.dense.weight"] == 0.25
    assert scales["text.transformer.encoder.layer.1.output.dense.weight"] == 0.5
    assert scales["logit_scale"] == 1


def test_the_pool_that_berts_other_tasks_have_is_not_trained(clip: Clip) -> None:
    own = {name for name, each in clip.model.named_parameters() if not each.requires_grad}
    assert own == {"text.transformer.pooler.dense.weight", "text.transformer.pooler.dense.bias"}


def test_only_the_last_blocks_are_trained(clip: Clip) -> None:
    choose_trainable(clip.model, lock_image=True, lock_text=False, last_blocks=1)
    trained = {name for name, each in clip.model.named_parameters() if each.requires_grad}
    assert {name.split(".")[4] for name in trained if "layer." in name} == {"1"}
    assert "text.transformer.embeddings.word_embeddings.weight" not in trained


def test_low_rank_changes_begin_at_nothing_and_are_merged(clip: Clip) -> None:
    before = clip.encode_texts(TEXTS)
    add_lora(clip.model, 4, towers=["text"])
    np.testing.assert_allclose(clip.encode_texts(TEXTS), before, atol=1e-6)
    adapted = [each for name, each in clip.model.named_parameters() if name.endswith(".B")]
    for each in adapted:
        torch.nn.init.normal_(each, std=0.1)
    changed = clip.encode_texts(TEXTS)

    merge_lora(clip.model)

    assert len(adapted) == 2 * 6  # query, key, value, output, and two of the MLP, in two blocks
    assert np.abs(changed - before).max() > 1e-3
    np.testing.assert_allclose(clip.encode_texts(TEXTS), changed, atol=1e-6)


def test_gradients_with_checkpointing_are_the_same(clip: Clip) -> None:
    tokens, found = clip.tokenizer(TEXTS), []
    for _ in range(2):
        clip.model.zero_grad()
        torch.manual_seed(0)
        encode_text(clip.model.train(), tokens)[:, 0].sum().backward()
        found.append([each.grad.clone() for each in clip.model.parameters() if each.grad is not None])
        checkpoint_gradients(clip.model, ["text"])

    assert clip.model.text.transformer.is_activation_checkpointing
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("width", [8, 64])
def test_another_width_is_a_layer_that_keeps_similarities_where_it_can(folder: Path, clip: Clip, width: int) -> None:
    other = load_clip(str(folder), options=ModelOptions(output_dim=width, matryoshka_dims=(4,)))

    plain, found = clip.encode_texts(TEXTS), other.encode_texts(TEXTS)

    assert found.shape == (len(TEXTS), width) == (len(TEXTS), other.config["embed_dim"])
    if width > 32:
        np.testing.assert_allclose(found @ found.T, plain @ plain.T, atol=1e-5)
    weight = dict(other.model.named_parameters())["text.dense.0.linear.weight"]
    assert layer_scales(other.model, 0.5)["text.dense.0.linear.weight"] == 1
    torch.testing.assert_close(weight @ weight.T if width < 32 else weight.T @ weight, torch.eye(min(width, 32)))


def test_fewer_tokens_are_read(folder: Path) -> None:
    clip = load_clip(str(folder), options=ModelOptions(context_length=8))
    assert clip.tokenizer(TEXTS).shape == (6, 8)
    np.testing.assert_allclose(clip.encode_texts(TEXTS), expected(folder, TEXTS, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 64}, "image_size = 64: the model embeds texts, and takes no pictures"),
        ({"context_length": 64}, "the encoder bert has places for 48 tokens. Choose 48 at most"),
        ({"matryoshka_dims": [8, 32]}, "32 is not below 32"),
    ],
)
def test_what_an_encoder_cannot_have_is_refused(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_options(config_of(find_model(str(folder))), ModelOptions(**options))
    if "matryoshka_dims" not in options:
        with pytest.raises(SettingsError, match=said):
            load_clip(str(folder), options=ModelOptions(**options))


def test_a_clip_has_no_other_pool() -> None:
    with pytest.raises(SettingsError, match="pooler = 'gem' is for models of one tower"):
        check_options(config_of(find_model("starter")), ModelOptions(pooler="gem"))


def test_its_shape_is_known_without_its_weights(folder: Path, clip: Clip) -> None:
    options = ModelOptions(output_dim=8)
    bare = shell(changed_config(config_of(find_model(str(folder))), options))

    shapes = {name: value.shape for name, value in load_clip(str(folder), options=options).model.state_dict().items()}
    assert {name: value.shape for name, value in bare.state_dict().items()} == shapes
    assert all(value.is_meta for value in bare.parameters())


def test_random_weights_follow_from_the_seed(folder: Path, clip: Clip) -> None:
    one, same, other = (load_clip(f"{folder}#scratch", seed=seed).encode_texts(TEXTS) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other, atol=1e-3)
    assert not np.allclose(one, clip.encode_texts(TEXTS), atol=1e-3)


SMALL = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "mt5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 4},
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_encoder_embeds_the_same_however_much_fills_up(kind: str) -> None:
    own = SMALL.get(kind, {})
    sizes = {} if "t5" in kind or kind == "distilbert" else SIZES
    positions = {} if "t5" in kind else {"max_position_embeddings": 40}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    special |= {"cls_token_id": 2, "sep_token_id": 3} if kind == "modernbert" else {}
    given = AutoConfig.for_model(kind, vocab_size=50, **sizes, **own, **positions, **special)
    config = {"dense": [], "pooler": "mean", "transformer": given.to_dict()}
    torch.manual_seed(0)
    model = build_sentence(config).eval()
    tokens = F.pad(torch.randint(4, 50, (6, 12)), (0, 20))
    tokens[0, 5:] = 0

    found = model.encode_text(tokens, normalize=True)

    torch.testing.assert_close(model.encode_text(tokens[:, :12], normalize=True), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_text(tokens[:1, :5], normalize=True), found[:1], rtol=1e-4, atol=1e-5)
    assert found.shape == (6, 32)
    assert blocks(model, "text") == (0 if kind == "albert" else 2)  # albert's blocks are one, over and over
    assert model.logit_scale.exp().item() == pytest.approx(20)
    assert math.isfinite(found.sum().item())


def test_texts_are_put_into_lower_case_and_begin_with_the_prompt_where_the_folder_says_so(tmp_path: Path) -> None:
    folder = save_sentence(tmp_path / "prompted")
    write(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    said = {"prompts": {"default": "where is ", "query": "never "}, "default_prompt_name": "default"}
    write(folder / "config_sentence_transformers.json", said)

    found = load_clip(str(folder)).encode_texts(["ALPHA"])

    np.testing.assert_allclose(found, expected(folder, ["where is alpha"]), atol=1e-6)
