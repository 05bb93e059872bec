"""The list of models: whole, true, and every name of it leads to a model."""

import open_clip
import pytest

from attune.errors import ModelError, SettingsError
from attune.models.catalog import ALIASES, IMAGE_MODELS, TASKS, describe_models
from attune.models.clip import config_of, load_clip
from attune.models.shell import shell
from attune.models.source import find_model

MODELS = {model.name: model for model in describe_models()}
CLIPS, ENCODERS = ({model.name: model for model in describe_models(task)} for task in ("text-to-image", "text-to-text"))


def test_it_has_each_model_of_open_clip_and_our_own_and_some_of_timms() -> None:
    """A new version of open_clip fails here: `python -m attune.models.catalog` writes the list anew."""
    assert MODELS.keys() - CLIPS.keys() - ENCODERS.keys() == {f"timm/{name}" for name in IMAGE_MODELS}
    assert CLIPS.keys() == {"starter", *("#".join(pair) for pair in open_clip.list_pretrained())}


@pytest.mark.parametrize("name", CLIPS)
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


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("timm/")])
def test_image_models_are_described_as_timm_builds_them(name: str) -> None:
    config, model = config_of(find_model(name)), MODELS[name]

    assert (config["embed_dim"], config["image_size"]) == (model.dimension, [model.image_size] * 2)
    assert sum(parameter.numel() for parameter in shell(config).parameters()) == model.parameters
    assert (model.task, model.context_length) == ("image-to-image", 0)
    assert model.weights


@pytest.mark.parametrize(
    ("alias", "dimension"),
    [("resnet-base", 2048), ("resnet-large", 2048), ("efficientnet-base", 1792), ("efficientnet-large", 2560)],
)
def test_models_of_finetuner_have_the_dimensions_they_had_there(alias: str, dimension: int) -> None:
    assert MODELS[ALIASES[alias]].dimension == dimension


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


@pytest.mark.parametrize("name", ENCODERS)
def test_every_text_encoder_is_on_the_hub(name: str) -> None:
    model, source = ENCODERS[name], find_model(name)

    assert (source.library, source.towers) == ("sentence_transformers", ("text",))
    assert source.hub == model.weights
    assert model.weights.endswith(name)
    assert (model.image_size, model.context_length > 100, model.dimension > 100) == (0, True, True)


def test_a_task_that_is_none() -> None:
    assert {*describe_models()} == {model for task in TASKS for model in describe_models(task)}
    with pytest.raises(
        SettingsError, match="task = 'text-to-tex' is not known.*did you mean 'text-to-text'.* Use one of: text-to-image"
    ):
        describe_models("text-to-tex")
