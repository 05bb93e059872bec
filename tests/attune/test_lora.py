from collections.abc import Callable
from copy import deepcopy
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from attune.errors import SettingsError
from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.models.lora import add_lora, merge_lora, merged_state
from attune.models.trainable import choose_trainable, train_mode

TEXT = {"context_length": 12, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 3}
RESNET = {"timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
TIMM_VIT = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: open_clip.CLIP(8, VIT, TEXT),
    "custom blocks": lambda: open_clip.CLIP(8, VIT, TEXT | {"qk_norm": True, "scale_fc": True}),
    "convolutions": lambda: open_clip.CustomTextCLIP(8, RESNET, TEXT),
    "modified resnet": lambda: open_clip.CLIP(8, VIT | {"layers": (1, 1, 1, 1), "width": 8}, TEXT),
    "timm vit": lambda: open_clip.CustomTextCLIP(8, TIMM_VIT, TEXT),
}


def make(name: str = "vit") -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]()


def inputs(model: nn.Module, pairs: int = 4) -> tuple[Tensor, Tensor]:
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 63, (pairs, 12), generator=generator)
    tokens[:, -1] = 63
    return torch.randn(pairs, 3, side, side, generator=generator), tokens


def embeddings(model: nn.Module) -> Tensor:
    model.eval()
    pixels, tokens = inputs(model)
    with torch.no_grad():
        return torch.cat([model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)])


def fit(model: nn.Module, steps: int = 8) -> list[float]:
    """Trains on four pairs; the loss of each step."""
    pixels, tokens = inputs(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.003)
    train_mode(model)
    losses = []
    for _ in range(steps):
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
        loss = clip_loss(EmbeddedBatch(images, texts, model.logit_scale.exp()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_unchanged_at_the_start(name: str) -> None:
    model = make(name)
    before = embeddings(model)

    add_lora(model, rank=2, alpha=4)

    assert torch.equal(embeddings(model), before)


@pytest.mark.parametrize("name", MODELS)
def test_training_moves_only_the_corrections_and_merging_keeps_the_outputs(name: str) -> None:
    model = make(name)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    add_lora(model, rank=2, alpha=4)

    losses = fit(model)

    assert losses[-1] < losses[0] - 0.3
    state = model.state_dict()
    kept = {key.replace("parametrizations.", "").removesuffix(".original"): value for key, value in state.items()}
    assert all(torch.equal(kept[key], value) for key, value in start.items() if key != "logit_scale")
    tuned, adapted = embeddings(model), trained(model)

    merged = merged_state(model)
    assert set(trained(model)) == set(adapted)  # the model goes on training
    assert torch.equal(embeddings(model), tuned)
    merge_lora(model)

    plain = model.state_dict()
    assert plain.keys() == merged.keys() == start.keys()
    assert all(torch.equal(plain[key], merged[key]) for key in plain)
    torch.testing.assert_close(embeddings(model), tuned, rtol=0, atol=1e-5)
    fresh = make(name)
    fresh.load_state_dict(merged)
    torch.testing.assert_close(embeddings(fresh), tuned, rtol=0, atol=1e-5)
    assert not torch.allclose(tuned, embeddings(make(name)), atol=1e-3)


def test_the_correction_is_alpha_over_rank_times_b_times_a() -> None:
    model = make()
    layer = model.visual.transformer.resblocks[0].mlp.c_fc
    base = layer.weight.detach().clone()
    add_lora(model, rank=2, alpha=6)
    correction = layer.parametrizations.weight[0]
    with torch.no_grad():
        correction.B.normal_()

    b, a = correction.B, correction.A
    expected = base + 3 * (b[:, :1] @ a[:1] + b[:, 1:] @ a[1:])  # 6 / 2

    torch.testing.assert_close(merged_state(model)["visual.transformer.resblocks.0.mlp.c_fc.weight"], expected)


def test_a_convolution_is_corrected_as_a_matrix() -> None:
    model = make("convolutions")
    name, layer = next((n, m) for n, m in model.named_modules() if n.endswith("layer2.0.conv2"))
    base = layer.weight.detach().clone()
    add_lora(model, rank=1)
    correction = layer.parametrizations.weight[0]
    with torch.no_grad():
        correction.B.normal_()

    change = merged_state(model)[f"{name}.weight"] - base

    assert base.shape[2:] == (3, 3)
    torch.testing.assert_close(change, torch.outer(correction.B[:, 0], correction.A[0]).reshape(base.shape))


def test_counts_of_trainable_parameters() -> None:
    model = make()

    add_lora(model, rank=2)

    # Width 16, so a block has in_proj (48, 16), out_proj (16, 16), c_fc (64, 16), c_proj (16, 64); five blocks.
    block = (48 + 16) + (16 + 16) + (64 + 16) + (16 + 64)
    assert sum(parameter.numel() for parameter in trained(model).values()) == 5 * 2 * block + 1  # and logit_scale


def test_a_tower_that_is_not_named_is_frozen() -> None:
    model = make()
    model.logit_scale.requires_grad_(False)

    add_lora(model, rank=2, towers=["text"])

    assert len(trained(model)) == 2 * 4 * 2  # two blocks, four matrices, A and B
    assert all(name.startswith("transformer.resblocks.") for name in trained(model))


def test_frozen_blocks_get_no_correction() -> None:
    model = make()
    choose_trainable(model, lock_image=False, lock_text=True, last_blocks=1)

    add_lora(model, rank=2)

    assert trained(model).keys() - {"logit_scale"} == {
        f"visual.transformer.resblocks.2.{layer}.0.{factor}"
        for layer in (
            "attn.parametrizations.in_proj_weight",
            "attn.out_proj.parametrizations.weight",
            "mlp.c_fc.parametrizations.weight",
            "mlp.c_proj.parametrizations.weight",
        )
        for factor in "AB"
    }


def test_stem_depthwise_and_head_are_left_alone() -> None:
    config = {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    model = open_clip.CustomTextCLIP(8, config, TEXT)

    add_lora(model, rank=2, towers=["image"])

    names = {name.split(".parametrizations")[0] for name in trained(model)} - {"logit_scale"}
    assert names
    assert all(".mlp." in name for name in names)


def test_works_in_copies_and_under_autocast() -> None:
    model = make()
    add_lora(model, rank=2)
    fit(model)
    copy: Any = deepcopy(model)
    assert torch.equal(embeddings(copy), embeddings(model))

    with torch.autocast("cpu", torch.bfloat16):
        rough = embeddings(model)
        merge_lora(model)
        assert torch.equal(embeddings(model), rough)


@pytest.mark.parametrize("rank", [0, 17])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    model = make()

    with pytest.raises(SettingsError, match=rf"rank of {rank} does not fit .*resblocks.*smaller side is 16\. .* 1 to 16"):
        add_lora(model, rank)

    assert len(trained(model)) == len(list(model.parameters()))
    add_lora(model, rank=16)


def test_nothing_to_adapt_is_refused() -> None:
    model = make()
    add_lora(model, rank=2)

    with pytest.raises(SettingsError, match=r"no trainable weight matrix .* \['image', 'text'\]: they are locked, adapted"):
        add_lora(model, rank=2)


def test_a_plain_model_is_merged_already() -> None:
    model = make()
    state = model.state_dict()

    merge_lora(model)

    assert merged_state(model).keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in merged_state(model).items())
