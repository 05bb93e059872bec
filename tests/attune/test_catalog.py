"""The list of models: whole, true, and every name of it leads to a model."""

import open_clip
import pytest

from attune.errors import ModelError, SettingsError
from attune.models.catalog import ALIASES, TASKS, describe_models
from attune.models.clip import load_clip
from attune.models.shell import shell
from attune.models.source import find_model

MODELS = {model.name: model for model in describe_models()}


def test_it_has_each_model_of_open_clip_and_our_own() -> None:
    """A new version of open_clip fails here: `python -m attune.models.catalog` writes the list anew."""
    assert MODELS.keys() == {"starter", *("#".join(pair) for pair in open_clip.list_pretrained())}


@pytest.mark.parametrize("name", MODELS)
def test_every_name_leads_to_a_model_of_that_description(name: str) -> None:
    source = find_model(name)
    model = MODELS[name]

    config = open_clip.get_model_config(source.open_clip_name)

    assert config["embed_dim"] == model.dimension
    assert config["text_cfg"].get("context_length", 77) == model.context_length
    assert model.parameters is None or model.parameters > 1_000_000
    assert (model.parameters is None) == ("hf_model_name" in config["text_cfg"])
    assert model.weights


@pytest.mark.parametrize("name", ["starter", "ViT-B-32#openai", "ViT-B-16-SigLIP#webli", "coca_ViT-B-32#laion2b_s13b_b90k"])
def test_sizes_are_those_of_the_models(name: str) -> None:
    model = shell(open_clip.get_model_config(find_model(name).open_clip_name))

    assert model is not None
    assert sum(parameter.numel() for parameter in model.parameters()) == MODELS[name].parameters


def test_the_starter_is_described_as_it_is() -> None:
    clip, described = load_clip("starter"), MODELS["starter"]

    assert sum(parameter.numel() for parameter in clip.model.parameters()) == described.parameters
    assert clip.encode_texts(["a cat"]).shape == (1, described.dimension)
    assert clip.preprocess["size"] in (described.image_size, [described.image_size, described.image_size])


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_other_names_mean_the_same(alias: str, name: str) -> None:
    assert find_model(alias) == find_model(name)
    assert find_model(f"{alias}#scratch") == find_model(f"{name.partition('#')[0]}#scratch")
    assert alias in MODELS[name].aliases


def test_an_alias_with_other_weights_says_which_there_are() -> None:
    with pytest.raises(ModelError, match="'ViT-B-32' has no weights 'nonsense'"):
        find_model("clip-base-en#nonsense")


def test_a_task_that_is_none() -> None:
    assert describe_models(TASKS[0]) == [*MODELS.values()]
    with pytest.raises(SettingsError, match="task = 'text-to-text' is not known.* Use one of: text-to-image"):
        describe_models("text-to-text")
