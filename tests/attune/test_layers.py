import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from attune.errors import SettingsError
from attune.models.clip import load_clip
from attune.models.layers import Place, blocks, layer_scales, locate
from attune.models.trainable import choose_trainable, frozen_batch_norms, tower_is_frozen, train_mode

TEXT = {"context_length": 12, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 3}
RESNET = {"timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear", "image_size": 32}


def tiny_vit() -> nn.Module:
    """Three blocks for images, two for text, the text tower's parts on the model itself."""
    torch.manual_seed(0)
    return open_clip.CLIP(8, VIT, TEXT)


def tiny_resnet(**vision: Any) -> nn.Module:
    """Four convolutional stages with batch norms for images; a text tower of its own."""
    torch.manual_seed(0)
    return open_clip.CustomTextCLIP(8, RESNET | vision, TEXT)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return open_clip.create_model(name, pretrained=None, device="meta", pretrained_text=False)


def roberta(folder: Path) -> nn.Module:
    config = {
        "model_type": "roberta",
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 20,
    }
    (folder / "config.json").write_text(json.dumps(config))
    text = {
        "hf_model_name": str(folder),
        "hf_model_pretrained": False,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    }
    return open_clip.CustomTextCLIP(8, VIT, text)


def calls(model: nn.Module, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[list[str], list[str]]:
    """One parameter of each layer that encoding pixels runs through, in that order; the same for tokens."""
    ran: list[str] = []
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(name, recurse=False)]
        if own and not list(module.children()):
            module.register_forward_hook(lambda *_, first=own[0]: ran.append(first))
    model.eval()
    with torch.no_grad():
        model.encode_image(pixels)
        image, ran[:] = list(ran), []
        model.encode_text(tokens)
    return image, ran


def check_depths_follow_the_data(model: nn.Module, length: int, device: str) -> None:
    places = locate(model)
    assert set(places) == {name for name, _ in model.named_parameters()}
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    with torch.device(device):
        pixels, tokens = torch.zeros(1, 3, height, width), torch.ones(1, length, dtype=torch.long)
        ran = calls(model, pixels, tokens)
    for tower, names in zip(("image", "text"), ran, strict=True):
        depths = [places[name].depth for name in names]
        assert {places[name].tower for name in names} == {tower}
        assert depths == sorted(depths)
        last = places[names[0]].of
        assert set(depths) | {last} == set(range(last + 1))  # what comes last may be a bare matrix, which is not called


# By hand from the architectures.
KNOWN = {
    "ViT-B-32": {
        "visual.conv1.weight": Place("image", 0, 13),
        "visual.class_embedding": Place("image", 0, 13),
        "visual.positional_embedding": Place("image", 0, 13),
        "visual.ln_pre.weight": Place("image", 0, 13),
        "visual.transformer.resblocks.0.attn.in_proj_weight": Place("image", 1, 13),
        "visual.transformer.resblocks.11.mlp.c_proj.bias": Place("image", 12, 13),
        "visual.ln_post.bias": Place("image", 13, 13),
        "visual.proj": Place("image", 13, 13),
        "token_embedding.weight": Place("text", 0, 13),
        "positional_embedding": Place("text", 0, 13),
        "transformer.resblocks.4.ln_1.weight": Place("text", 5, 13),
        "ln_final.weight": Place("text", 13, 13),
        "text_projection": Place("text", 13, 13),
        "logit_scale": Place("both", 0, 0),
    },
    "RN50": {
        "visual.conv3.weight": Place("image", 0, 5),
        "visual.bn3.weight": Place("image", 0, 5),
        "visual.layer1.0.downsample.0.weight": Place("image", 1, 5),
        "visual.layer4.2.bn3.weight": Place("image", 4, 5),
        "visual.attnpool.positional_embedding": Place("image", 5, 5),
        "visual.attnpool.q_proj.weight": Place("image", 5, 5),
    },
    "convnext_base": {
        "visual.trunk.stem.0.weight": Place("image", 0, 5),
        "visual.trunk.stages.1.downsample.0.weight": Place("image", 2, 5),
        "visual.trunk.stages.2.blocks.26.mlp.fc1.weight": Place("image", 3, 5),
        "visual.trunk.head.norm.weight": Place("image", 5, 5),
        "visual.head.proj.weight": Place("image", 5, 5),
    },
    "ViT-B-16-SigLIP": {
        "visual.trunk.pos_embed": Place("image", 0, 13),
        "visual.trunk.patch_embed.proj.weight": Place("image", 0, 13),
        "visual.trunk.blocks.11.mlp.fc2.bias": Place("image", 12, 13),
        "visual.trunk.norm.weight": Place("image", 13, 13),
        "visual.trunk.attn_pool.latent": Place("image", 13, 13),
        "text.positional_embedding": Place("text", 0, 13),
        "text.text_projection.bias": Place("text", 13, 13),
        "logit_bias": Place("both", 0, 0),
    },
    "coca_ViT-B-32": {
        "visual.attn_pool.query": Place("image", 13, 13),
        "text.cls_emb": Place("text", 0, 13),
        "text.transformer.resblocks.11.attn.out_proj.weight": Place("text", 12, 13),
        "text_decoder.resblocks.0.ln_1.weight": Place("text", 13, 13),
        "text_decoder.cross_attn.3.ln_1_kv.weight": Place("text", 13, 13),
    },
    # A convolutional stem with stages of its own in front of a transformer.
    "ViTamin-S": {
        "visual.trunk.patch_embed.backbone.stages.1.3.conv3_1x1.weight": Place("image", 0, 15),
        "visual.trunk.blocks.13.norm2.weight": Place("image", 14, 15),
        "visual.trunk.fc_norm.weight": Place("image", 15, 15),
    },
    "MobileCLIP-S1": {
        "visual.trunk.final_conv.conv_kxk.0.conv.weight": Place("image", 5, 5),
        "visual.trunk.head.fc.weight": Place("image", 5, 5),
    },
}


@pytest.mark.parametrize("name", KNOWN)
def test_every_parameter_has_a_depth_that_grows_with_the_data(name: str) -> None:
    model = on_meta(name)

    places = locate(model)

    assert {key: places[key] for key in KNOWN[name]} == KNOWN[name]
    check_depths_follow_the_data(model, model.context_length, "meta")


def test_places_the_starter(attune_home: Path) -> None:
    model = load_clip("starter").model

    assert (blocks(model, "image"), blocks(model, "text")) == (4, 3)
    assert locate(model)["visual.trunk.stages.3.blocks.0.conv_concat.conv.weight"] == Place("image", 4, 5)
    check_depths_follow_the_data(model, 24, "cpu")


def test_places_a_hugging_face_text_tower(tmp_path: Path) -> None:
    model = roberta(tmp_path)

    places = locate(model)

    assert blocks(model, "text") == 2
    assert places["text.transformer.embeddings.LayerNorm.weight"] == Place("text", 0, 3)
    assert places["text.transformer.encoder.layer.1.attention.self.query.weight"] == Place("text", 2, 3)
    assert places["text.proj.2.weight"] == Place("text", 3, 3)
    check_depths_follow_the_data(model, 12, "cpu")


def test_a_tower_without_numbered_blocks_is_stem_and_projection() -> None:
    model = tiny_resnet()
    model.visual.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

    places = locate(model)

    assert blocks(model, "image") == 0
    assert places["visual.trunk.1.weight"] == Place("image", 0, 1)
    assert places["visual.head.proj.weight"] == Place("image", 1, 1)


def test_learning_rates_decay_towards_the_input() -> None:
    scales = layer_scales(tiny_vit(), 0.5)

    # Three image blocks, so depths 0 to 4; two text blocks, so 0 to 3.
    assert scales["visual.conv1.weight"] == 0.5**4
    assert scales["visual.transformer.resblocks.0.ln_1.weight"] == 0.5**3
    assert scales["visual.transformer.resblocks.2.ln_1.weight"] == 0.5
    assert scales["visual.proj"] == 1
    assert scales["token_embedding.weight"] == 0.5**3
    assert scales["transformer.resblocks.1.mlp.c_fc.weight"] == 0.5
    assert scales["text_projection"] == scales["logit_scale"] == 1
    assert set(layer_scales(tiny_vit(), 1.0).values()) == {1.0}


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_locked_tower_is_frozen_and_the_other_is_not() -> None:
    model = tiny_vit()

    choose_trainable(model, lock_image=True, lock_text=False, last_blocks=None)

    assert trained(model) == {name for name, _ in model.named_parameters() if not name.startswith("visual.")}
    assert tower_is_frozen(model, "image")
    assert not tower_is_frozen(model, "text")


def test_the_last_blocks_and_what_follows_them_are_trained() -> None:
    model = tiny_vit()

    choose_trainable(model, lock_image=False, lock_text=False, last_blocks=1)

    top = {"visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"}
    top |= {"ln_final.weight", "ln_final.bias", "text_projection", "logit_scale"}
    last = ("visual.transformer.resblocks.2.", "transformer.resblocks.1.")
    assert trained(model) == top | {name for name, _ in model.named_parameters() if name.startswith(last)}

    choose_trainable(model, lock_image=False, lock_text=False, last_blocks=0)
    assert trained(model) == top


def test_what_was_frozen_before_stays_frozen() -> None:
    model = tiny_vit()
    model.logit_scale.requires_grad_(False)
    model.visual.conv1.weight.requires_grad_(False)

    choose_trainable(model, lock_image=False, lock_text=True, last_blocks=3)

    # All three image blocks, but no stem; the text tower has only two blocks, but it is locked.
    assert "visual.transformer.resblocks.0.ln_1.weight" in trained(model)
    assert not trained(model) & {"logit_scale", "visual.conv1.weight", "text_projection"}


@pytest.mark.parametrize(
    ("lock_image", "lock_text", "last_blocks", "said"),
    [
        (True, True, None, "lock_image=True, lock_text=True .* leave nothing to train"),
        (False, False, 3, "train_last_blocks is 3, but the text tower has 2 blocks. Choose from 0 to 2"),
        (True, False, 3, "the text tower has 2 blocks"),
        (False, True, 4, "the image tower has 3 blocks. Choose from 0 to 3"),
        (False, False, 4, "the image tower has 3 blocks and the text tower has 2 blocks. Choose from 0 to 2"),
        (False, False, -1, "train_last_blocks is -1, but it must not be negative"),
    ],
)
def test_an_impossible_choice_is_refused(lock_image: bool, lock_text: bool, last_blocks: int | None, said: str) -> None:
    model = tiny_vit()

    with pytest.raises(SettingsError, match=said):
        choose_trainable(model, lock_image, lock_text, last_blocks)

    assert trained(model) == {name for name, _ in model.named_parameters()}


def moved_statistics(model: nn.Module) -> set[str]:
    """Stages whose batch norms' running means change when pixels are encoded."""
    norms = {name: module for name, module in model.visual.trunk.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    model.encode_image(torch.randn(4, 3, 32, 32))
    return {name.split(".")[0] for name, norm in norms.items() if not torch.equal(norm.running_mean, before[name])}


def test_frozen_batch_norms_keep_their_statistics() -> None:
    everything = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    model = tiny_resnet()
    train_mode(model)
    assert moved_statistics(model) == everything
    assert frozen_batch_norms(model) == []

    choose_trainable(model, lock_image=False, lock_text=False, last_blocks=1)
    model.train()
    assert moved_statistics(model) == everything  # what `train_mode` is for
    train_mode(model)
    assert moved_statistics(model) == {"layer4"}

    choose_trainable(model, lock_image=True, lock_text=False, last_blocks=None)
    train_mode(model)
    assert moved_statistics(model) == set()


def test_a_locked_tower_has_no_dropout() -> None:
    model = tiny_resnet(timm_drop=0.5)
    pixels = torch.randn(2, 3, 32, 32)
    choose_trainable(model, lock_image=False, lock_text=False, last_blocks=0)
    train_mode(model)
    assert not torch.equal(model.encode_image(pixels), model.encode_image(pixels))

    choose_trainable(model, lock_image=True, lock_text=False, last_blocks=None)
    train_mode(model)

    assert torch.equal(model.encode_image(pixels), model.encode_image(pixels))
    assert model.training
    assert model.text.training


def test_a_locked_text_tower_is_evaluated_wherever_its_parts_are() -> None:
    for model in (tiny_vit(), tiny_resnet()):
        choose_trainable(model, lock_image=False, lock_text=True, last_blocks=None)
        train_mode(model)

        assert model.visual.training
        assert not any(module.training for name, module in model.named_modules() if name and not name.startswith("visual"))
