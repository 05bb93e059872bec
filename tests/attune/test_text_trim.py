from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from attune.models.clip import load_clip
from attune.models.lora import add_lora
from attune.models.text import encode_by_length, encode_text, trim
from tests.attune.test_layers import roberta

VIT = {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 1}
TEXT = {"context_length": 12, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}

CAUSAL: dict[str, Callable[[], nn.Module]] = {
    "text tower on the model": lambda: open_clip.CLIP(8, VIT, TEXT),
    "text tower of its own": lambda: open_clip.CustomTextCLIP(8, VIT, TEXT),
    "linear projection, eos": lambda: open_clip.CustomTextCLIP(
        8, VIT, TEXT | {"proj_bias": True, "pool_type": "eos", "eos_id": 5}
    ),
    "eos on the model": lambda: open_clip.CLIP(8, VIT, TEXT | {"pool_type": "eos", "eos_id": 5}),
    "custom blocks": lambda: open_clip.CLIP(8, VIT, TEXT | {"qk_norm": True}),
}
NOT_EXACT: dict[str, Callable[[], nn.Module]] = {
    "looks both ways": lambda: open_clip.CustomTextCLIP(8, VIT, TEXT | {"no_causal_mask": True}),
    "pools the last token": lambda: open_clip.CustomTextCLIP(8, VIT, TEXT | {"pool_type": "last"}),
    "pools the first token": lambda: open_clip.CLIP(8, VIT, TEXT | {"pool_type": "first"}),
    "class token": lambda: open_clip.CustomTextCLIP(8, VIT, TEXT | {"embed_cls": True}),
}


def make(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def captions(end: int, padding: int = 0) -> Tensor:
    """Four captions of 3, 6, 2 and 5 tokens in a context of 12: words 10 to 59, the end-of-text token, padding."""
    tokens = torch.full((4, 12), padding)
    for row, length in zip(tokens, (3, 6, 2, 5), strict=True):
        row[: length - 1] = torch.randint(10, 60, (length - 1,), generator=torch.Generator().manual_seed(length))
        row[length - 1] = end
    return tokens


def end_of(model: nn.Module) -> int:
    tower = getattr(model, "text", model)
    return 5 if "eos" in (getattr(tower, "pool_type", ""), getattr(tower, "text_pool_type", "")) else 63


def gradients(model: nn.Module, embeddings: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss in which every number of the embeddings has a weight of its own."""
    weights = torch.linspace(-1, 1, embeddings.numel()).reshape(embeddings.shape)
    model.zero_grad()
    (embeddings.float() * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_equal(model: nn.Module, tokens: Tensor, short: Tensor) -> None:
    full = model.encode_text(tokens, normalize=True)
    expected = gradients(model, full)
    cut = encode_text(model, short)
    found = gradients(model, cut)

    torch.testing.assert_close(cut, full, rtol=0, atol=1e-6)
    assert found.keys() == expected.keys()
    assert any("positional_embedding" in name for name in found)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("training", [True, False])
def test_embeddings_and_gradients_are_those_of_the_padded_tokens(name: str, padding: int, training: bool) -> None:
    model = make(CAUSAL[name]).train(training)
    tokens = captions(end_of(model), padding)

    short = trim(tokens, model)

    assert short.shape == (4, 6)
    check_equal(model, tokens, short)


def test_embeddings_are_those_of_the_padded_tokens_in_inference() -> None:
    for build in CAUSAL.values():
        model = make(build).eval()
        tokens = captions(end_of(model))
        with torch.inference_mode():
            torch.testing.assert_close(encode_text(model, trim(tokens, model)), model.encode_text(tokens, normalize=True))


def test_trims_what_the_starter_reads(attune_home: Path) -> None:
    clip = load_clip("starter")
    tokens = clip.tokenizer(["a red circle", "a cat", "two small dogs on a beach"])

    short = trim(tokens, clip.model)

    length = int((tokens != 0).sum(dim=1).max())
    assert short.shape == (3, length)
    assert length < tokens.shape[1]
    check_equal(clip.model.train(), tokens, short)


@pytest.mark.parametrize("name", NOT_EXACT)
def test_a_tower_that_sees_the_padding_gets_all_tokens(name: str) -> None:
    model = make(NOT_EXACT[name])
    tokens = captions(63)

    assert trim(tokens, model) is tokens
    with pytest.raises(ValueError, match="Tokens of length 6 .* depends on all 12"):
        encode_text(model, tokens[:, :6])


def test_a_tower_that_looks_both_ways_encodes_as_before() -> None:
    model = make(NOT_EXACT["looks both ways"]).eval()
    tokens = captions(63)

    assert torch.equal(encode_text(model, trim(tokens, model)), model.encode_text(tokens, normalize=True))


def test_a_hugging_face_tower_gets_what_it_is_given(tmp_path: Path) -> None:
    model = make(lambda: roberta(tmp_path)).eval()
    tokens = captions(2, padding=1)

    assert trim(tokens, model) is tokens
    for given in (tokens, tokens[:, :6]):
        assert torch.equal(encode_text(model, given), model.encode_text(given, normalize=True))


def test_a_caption_without_an_end_keeps_its_embedding() -> None:
    model = make(CAUSAL["eos on the model"]).eval()
    tokens = captions(5)
    tokens[1] = 9  # open_clip then takes the first token's

    short = trim(tokens, model)

    assert short.shape == (4, 5)
    torch.testing.assert_close(encode_text(model, short), model.encode_text(tokens, normalize=True), rtol=0, atol=1e-6)


def test_full_captions_are_not_cut() -> None:
    model = make(CAUSAL["text tower on the model"])
    tokens = torch.full((2, 12), 11)
    tokens[0, -1] = 63

    assert trim(tokens, model).shape == (2, 12)
    assert torch.equal(encode_text(model, tokens), model.encode_text(tokens, normalize=True))


@pytest.mark.parametrize("name", CAUSAL)
def test_captions_encoded_by_length_have_the_same_embeddings_and_gradients(name: str) -> None:
    model = make(CAUSAL[name])
    tokens = captions(end_of(model)).repeat(15, 1)
    seen: list[tuple[int, ...]] = []
    tower = getattr(model, "text", model)
    tower.token_embedding.register_forward_hook(lambda *call: seen.append(tuple(call[1][0].shape)))

    full = model.encode_text(tokens, normalize=True)
    expected = gradients(model, full)
    seen.clear()
    parts = encode_by_length(model, tokens)
    found = gradients(model, parts)

    assert seen == [(20, 3), (20, 5), (20, 6)]  # of 15 of each length, 2, 3, 5 and 6
    torch.testing.assert_close(parts, full, rtol=0, atol=1e-6)
    for gradient in expected:
        torch.testing.assert_close(found[gradient], expected[gradient], rtol=1e-4, atol=3e-5)  # sums of 60 rows


def test_few_captions_and_those_of_a_tower_that_sees_the_padding_are_encoded_at_once() -> None:
    for model, tokens in (
        (make(CAUSAL["text tower on the model"]), captions(63)),
        (make(NOT_EXACT["looks both ways"]), captions(63).repeat(15, 1)),
    ):
        assert torch.equal(encode_by_length(model, tokens), encode_text(model, tokens))


def test_lengths_are_left_as_they_are_on_request() -> None:
    model = make(CAUSAL["text tower of its own"])
    tokens = captions(63)

    torch.testing.assert_close(encode_text(model, trim(tokens, model), normalize=False), model.encode_text(tokens))


def test_the_model_is_whole_after_a_call() -> None:
    for build in CAUSAL.values():
        model = make(build)
        tower = getattr(model, "text", model)
        before = tower.positional_embedding, tower.attn_mask

        encode_text(model, trim(captions(end_of(model)), model))

        assert tower.positional_embedding is before[0]
        assert tower.attn_mask is before[1]


@pytest.mark.parametrize("name", ["text tower on the model", "text tower of its own"])
def test_works_under_autocast_checkpointing_and_with_lora(name: str) -> None:
    model = make(CAUSAL[name]).train()
    tokens = captions(63)
    model.set_grad_checkpointing(True)
    check_equal(model, tokens, trim(tokens, model))
    add_lora(model, rank=2)

    with torch.autocast("cpu", torch.bfloat16):
        full, cut = model.encode_text(tokens, normalize=True), encode_text(model, trim(tokens, model))

    torch.testing.assert_close(cut.float(), full.float(), rtol=0, atol=1e-2)
    assert gradients(model, cut).keys() == gradients(model, full).keys()
