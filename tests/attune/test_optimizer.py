from pathlib import Path

import pytest
import torch
from torch import nn

from attune.config import check_settings
from attune.models.clip import load_clip
from attune.models.lora import add_lora
from attune.models.trainable import choose_trainable
from attune.training.optimizer import make_optimizer, set_learning_rate
from attune.training.recipe import choose_recipe

DECAY = 0.3  # weight decay


def optimizer_of(model: nn.Module, **changes: object) -> torch.optim.Optimizer:
    settings = check_settings({"model": "some#model", "train_data": "shapes", "learning_rate": 0.01, **changes})
    return make_optimizer(model, choose_recipe(settings, model, 100, 100), DECAY)


def group_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, object]]:
    """The group of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}


@pytest.fixture
def vit(tiny_vit: Path) -> nn.Module:
    return load_clip(str(tiny_vit)).model


@pytest.mark.parametrize("how", ["all of it", "resnet", "text alone", "last block", "lora"])
def test_every_trainable_parameter_is_in_one_group_and_no_other_is(vit: nn.Module, tiny_model: Path, how: str) -> None:
    model = load_clip(str(tiny_model)).model if how == "resnet" else vit
    choose_trainable(model, how == "text alone", False, 1 if how == "last block" else None)
    if how == "lora":
        add_lora(model, 2)

    held = [id(parameter) for group in optimizer_of(model).param_groups for parameter in group["params"]]

    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_weight_decay_is_for_matrices_alone(vit: nn.Module, tiny_model: Path) -> None:
    for model in (vit, load_clip(str(tiny_model)).model):
        decays = {name: group["weight_decay"] for name, group in group_of(optimizer_of(model), model).items()}

        for name, parameter in model.named_parameters():
            assert decays[name] == (0 if parameter.ndim < 2 else DECAY), name
        kinds = {name.rpartition(".")[2] for name, decay in decays.items() if decay == 0}
        assert {"bias", "logit_scale", "weight"} <= kinds  # the weights are those of norms
        assert decays["visual.proj" if model is vit else "text_projection"] == DECAY


def test_the_lower_a_layer_the_smaller_its_rate(vit: nn.Module) -> None:
    optimizer = optimizer_of(vit, layer_wise_lr_decay=0.5)
    set_learning_rate(optimizer, 0.08)

    rates = {name: group["lr"] for name, group in group_of(optimizer, vit).items()}

    # Embedding, two blocks, and what follows them: 0.08 x 0.5 ** 3, ** 2, ** 1, ** 0.
    for tower in ("visual.", ""):
        assert rates[f"{tower}transformer.resblocks.0.mlp.c_fc.weight"] == pytest.approx(0.02)
        assert rates[f"{tower}transformer.resblocks.1.mlp.c_fc.bias"] == pytest.approx(0.04)
    for name, rate in {"visual.conv1.weight": 0.01, "token_embedding.weight": 0.01, "visual.proj": 0.08}.items():
        assert rates[name] == pytest.approx(rate)
    assert rates["text_projection"] == rates["ln_final.weight"] == pytest.approx(0.08)


def test_low_rank_changes_have_the_rates_of_their_layers(vit: nn.Module) -> None:
    add_lora(vit, 2)
    optimizer = optimizer_of(vit, layer_wise_lr_decay=0.5, lora_rank=2)
    set_learning_rate(optimizer, 0.08)

    rates = {name: group["lr"] for name, group in group_of(optimizer, vit).items()}

    low = "transformer.resblocks.0.mlp.c_fc.parametrizations.weight.0.A"
    assert (rates[low], rates[low.replace(".0.mlp", ".1.mlp")]) == pytest.approx((0.02, 0.04))


@pytest.mark.parametrize(("logit_scale", "share"), [("learned", 1), ("slow", 0.1), ("frozen", 0)])
def test_the_temperature_learns_as_fast_as_asked(vit: nn.Module, logit_scale: str, share: float) -> None:
    optimizer = optimizer_of(vit, logit_scale=logit_scale)
    set_learning_rate(optimizer, 0.08)
    assert group_of(optimizer, vit)["logit_scale"]["lr"] == pytest.approx(0.08 * share)

    before = {name: value.clone() for name, value in vit.state_dict().items()}
    for parameter in vit.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    # Adam's first step is of the size of the rate, whatever the gradient.
    moved = (before["logit_scale"] - vit.logit_scale).item()
    assert moved == pytest.approx(0.08 * share, rel=1e-3)
    assert (before["ln_final.bias"] - vit.ln_final.bias).mean().item() == pytest.approx(0.08, rel=1e-3)
