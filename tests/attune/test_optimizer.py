from pathlib import Path

import pytest
import torch
from torch import nn

from attune.config import check_settings
from attune.errors import SettingsError
from attune.models.clip import load_clip
from attune.models.lora import add_lora
from attune.models.trainable import choose_trainable
from attune.optimizers import NOT_FOR_TRAINING, OPTIMIZERS
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun
from attune.training.continuing import load_optimizer, save_optimizer
from attune.training.optimizer import check_options, make_optimizer, set_learning_rate
from attune.training.recipe import choose_recipe
from tests.attune.test_recipe import of_groups

DECAY = 0.3  # weight decay


def optimizer_of(model: nn.Module, **changes: object) -> torch.optim.Optimizer:
    given = {"learning_rate": 0.01, "weight_decay": DECAY, **changes}
    settings = check_settings({"model": "some#model", "train_data": "shapes", **given})
    return make_optimizer(model, choose_recipe(settings, model, of_groups(100, 100)), settings.optimizer_options)


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


def test_every_optimizer_of_torch_is_known() -> None:
    kinds = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    assert kinds == OPTIMIZERS.keys() | NOT_FOR_TRAINING.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_and_goes_on_from_what_was_kept(name: str, tiny_vit: Path, attune_home: Path) -> None:
    def stepped(optimizer: torch.optim.Optimizer, model: nn.Module, number: int) -> None:
        for parameter in model.parameters():
            torch.manual_seed(number + parameter.numel())
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    decay = {} if OPTIMIZERS[name].weight_decay is None else {"weight_decay": DECAY}
    model, other = load_clip(str(tiny_vit)).model, load_clip(str(tiny_vit)).model
    optimizer = optimizer_of(model, optimizer=name, **{"weight_decay": "auto", **decay})
    folder = RunFolder.create(FinetuningRun(name="first"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for number in range(2):
        stepped(optimizer, model, number)
    save_optimizer(folder, model, optimizer)

    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert not torch.equal(before["visual.conv1.weight"], model.state_dict()["visual.conv1.weight"])
    kept = sum(value.numel() for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert OPTIMIZERS[name].moments == round(kept / weights)
    other.load_state_dict(model.state_dict())
    second = optimizer_of(other, optimizer=name, **{"weight_decay": "auto", **decay})
    load_optimizer(folder, other, second)
    stepped(optimizer, model, 2)
    stepped(second, other, 2)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_another_optimizers_state_is_not_taken(vit: nn.Module, attune_home: Path) -> None:
    folder = RunFolder.create(FinetuningRun(name="first"))
    save_optimizer(folder, vit, optimizer_of(vit))
    with pytest.raises(SettingsError, match="was trained with AdamW, and this one is to be with RAdam"):
        load_optimizer(folder, vit, optimizer_of(vit, optimizer="RAdam"))


def test_options_reach_the_optimizer_over_ours(vit: nn.Module) -> None:
    assert optimizer_of(vit).defaults["betas"] == optimizer_of(vit, optimizer="RAdam").defaults["betas"] == (0.9, 0.98)
    changed = optimizer_of(vit, optimizer_options={"betas": [0.8, 0.9], "amsgrad": True}).defaults
    assert (changed["betas"], changed["amsgrad"], changed["eps"]) == ((0.8, 0.9), True, 1e-6)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "AdamW",
            {"beta": [0.9, 0.9]},
            "AdamW takes no 'beta' here (did you mean 'betas'?). Its options are: betas = (0.9, ",
        ),
        (
            "SGD",
            {"lr": 1},
            "SGD takes no 'lr' here. It is a setting of its own, learning_rate. Its options are: momentum = 0, ",
        ),
        ("Adam", {"fused": False}, "Adam takes no 'fused' here. Its options are"),
        ("Adam", {"betas": [0.9, 2]}, "cannot be used with Adam: Invalid beta parameter at index 1: 2"),
        *(
            (
                "Adam",
                {"betas": betas},
                f"optimizer_options.betas = {betas} cannot be used with Adam: give a value such as its",
            )
            for betas in (0.9, [0.9], [0.9, 0.9, 0.9], [0.9, None], ["a", "b"], [0.9, True], None)
        ),
        ("Adam", {"eps": -1}, "cannot be used with Adam: Invalid epsilon value: -1"),
        *(
            ("Adam", {"eps": eps}, "cannot be used with Adam: give a value such as its default, 1e-08")
            for eps in (float("nan"), float("inf"), 10**400, True, "1", [1e-8])
        ),
        ("Adam", {"amsgrad": 1}, "optimizer_options.amsgrad = 1 cannot be used"),
        ("SGD", {"momentum": "much"}, "cannot be used with SGD"),
        ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
    ],
)
def test_options_that_an_optimizer_does_not_take_are_refused(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_options(name, options)
    assert said in str(refused.value)
