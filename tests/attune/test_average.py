from pathlib import Path

import pytest
import torch
from torch import nn

from attune.models.clip import load_clip
from attune.models.trainable import choose_trainable
from attune.training.average import WeightAverage, between, statistics


def shake(model: nn.Module, seed: int) -> None:
    """Changes every parameter and every floating-point buffer at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value += torch.randn(value.shape, generator=generator)


def averaged(model: nn.Module) -> WeightAverage:
    """The average of three states of a model that is shaken in between."""
    average = WeightAverage(model, 0.9)
    for seed in range(3):
        shake(model, seed)
        average.update(model)
    return average


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_average_is_that_of_the_definition(decay: float) -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay)
    expected = model.weight.detach().double()

    for step in range(1, 30):
        shake(model, step)
        average.update(model)
        # Step t counts 1 - decay, but at first, when there is little to average, more: 9 / (10 + t).
        share = max(1 - decay, 9 / (10 + step))
        expected = (1 - share) * expected + share * model.weight.detach().double()

    torch.testing.assert_close(average.values["weight"].double(), expected, rtol=1e-5, atol=1e-5)
    assert average.steps == 29


def test_running_statistics_are_averaged_and_nothing_else_but_what_is_trained(tiny_model: Path) -> None:
    model = load_clip(str(tiny_model)).model
    choose_trainable(model, False, True, None)

    average = WeightAverage(model, 0.9)

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = set(average.values) - trained
    assert trained < set(average.values)
    assert found == set(statistics(model))
    assert {name.rpartition(".")[2] for name in found} == {"running_mean", "running_var"}
    assert any(name.startswith("visual.") for name in found)


def test_inside_the_block_the_model_is_the_average_and_afterwards_itself(tiny_model: Path) -> None:
    model = load_clip(str(tiny_model)).model
    average = averaged(model)
    own, values = copy_of(model), {name: value.clone() for name, value in average.values.items()}

    def look() -> None:
        with average.applied(model):
            for name, value in copy_of(model).items():
                assert torch.equal(value, values.get(name, own[name])), name
            raise KeyError("what happens inside")

    with pytest.raises(KeyError, match="inside"):
        look()

    assert all(torch.equal(value, own[name]) for name, value in copy_of(model).items())
    assert all(torch.equal(value, values[name]) for name, value in average.values.items())
    assert any(not torch.equal(value, own[name]) for name, value in values.items())


def test_an_attention_mask_is_left_alone(tiny_vit: Path) -> None:
    model = load_clip(str(tiny_vit)).model
    assert torch.isinf(model.attn_mask).any()  # an average of these would be no number
    average = WeightAverage(model, 0.9)

    average.update(model)

    assert "attn_mask" not in average.values
    assert not statistics(model)
    before = model.attn_mask.clone()
    with average.applied(model):
        assert torch.equal(model.attn_mask, before)


def test_an_average_goes_on_from_what_it_wrote_down(tiny_model: Path) -> None:
    model = load_clip(str(tiny_model)).model
    one = averaged(model)
    other = WeightAverage(model, 0.9)
    other.load_state_dict(
        {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in one.state_dict().items()}
    )

    shake(model, 9)
    one.update(model)
    other.update(model)

    assert other.steps == 4
    assert all(torch.equal(value, other.values[name]) for name, value in one.values.items())


def test_between_is_the_straight_line_from_one_model_to_the_other() -> None:
    start = {"a": torch.tensor([1.0, -2.0]), "half": torch.tensor([1.0], dtype=torch.float16), "steps": torch.tensor(3)}
    end = {"a": torch.tensor([3.0, -6.0]), "half": torch.tensor([2.0], dtype=torch.float16), "steps": torch.tensor(9)}

    # WiSE-FT: (1 - share) x start + share x end; what is no fraction cannot be mixed
    quarter = between(start, end, 0.25)
    assert quarter["a"].tolist() == [1.5, -3.0]
    assert (quarter["half"].item(), quarter["half"].dtype) == (1.25, torch.float16)
    assert quarter["steps"].item() == 9


def test_the_ends_of_the_line_are_the_models_bit_by_bit(tiny_model: Path) -> None:
    models = [load_clip(str(tiny_model)).model for _ in range(2)]
    shake(models[1], 1)
    for module in models[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked += 1
    start, end = (model.state_dict() for model in models)

    for share, expected in ((0.0, start), (1.0, end)):
        found = between(start, end, share)
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
