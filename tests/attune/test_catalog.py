"""The list of models: whole, true, and every name of it leads to a model."""

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub.utils import validate_repo_id
from timm.models import get_pretrained_cfg

from attune.errors import ModelError, SettingsError
from attune.models.catalog import ALIASES, IMAGE_MODELS, TASKS, describe_models
from attune.models.clip import config_of, load_clip
from attune.models.shell import shell
from attune.models.source import find_model

FINETUNER = {
    "bert-base-en": 768,
    "bert-base-multi": 768,
    "clip-base-en": 512,
    "clip-base-multi": 512,
    "clip-large-en": 768,
    "distiluse-base-multi": 512,
    "efficientnet-base": 1792,
    "efficientnet-large": 2560,
    "jina-embedding-b-en-v1": 768,
    "jina-embedding-l-en-v1": 1024,
    "jina-embedding-s-en-v1": 512,
    "jina-embedding-t-en-v1": 312,
    "resnet-base": 2048,
    "resnet-large": 2048,
    "sbert-base-en": 768,
}
"""Jina Finetuner's names of models, and the lengths of their embeddings."""

MODELS = {model.name: model for model in describe_models()}
CLIPS, ENCODERS = ({model.name: model for model in describe_models(task)} for task in ("text-to-image", "text-to-text"))


def test_it_has_each_model_of_open_clip_and_our_own_and_some_of_timms() -> None:
    """A new version of open_clip fails here: `python -m attune.models.catalog` writes the list anew."""
    assert MODELS.keys() - CLIPS.keys() - ENCODERS.keys() == {"mlp", *(f"timm/{name}" for name in IMAGE_MODELS)}
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


@pytest.mark.parametrize("name", [*MODELS, *ALIASES])
def test_every_name_leads_to_weights_that_its_library_knows(name: str) -> None:
    """Where paths and the hub's other models are not allowed: a name that nobody knows would be an error."""
    source, model = find_model(name, []), MODELS[ALIASES.get(name, name)]

    if source.library == "timm":
        known = get_pretrained_cfg(source.architecture)
        assert known is not None
        assert model.weights == known.hf_hub_id or known.url
    elif source.library == "sentence_transformers":
        validate_repo_id(source.hub)
        assert model.weights == source.hub
    elif source.library == "open_clip" and source.folder is None:
        listed = open_clip.get_pretrained_cfg(source.architecture, source.weights)
        assert model.weights == listed.get("hf_hub", "").strip("/") or listed["url"]


@pytest.mark.parametrize(
    "name", ["ViT-B-32#openaj", "timm/resnet50.a1_in2k", "bert-base-caseless", "nobody/nothing", "clip"]
)
def test_a_name_that_leads_nowhere_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        find_model(name, [])


@pytest.mark.parametrize("architecture", open_clip.list_models())
def test_every_architecture_of_open_clip_can_begin_with_random_weights(architecture: str) -> None:
    source = find_model(f"{architecture}#scratch", [])

    assert (source.architecture, source.scratch, source.library) == (architecture, True, "open_clip")
    assert config_of(source)["embed_dim"] > 0


def check_shapes(config: dict[str, Any]) -> None:
    """Two pictures and two texts forward and back, in shapes alone; but text towers of the hub, which are known there."""
    model = shell(config)
    text = config.get("text_cfg", {})
    assert (model is None) == ("hf_model_name" in text)
    if model is None:
        return
    height, width = np.broadcast_to(model.visual.image_size, 2).tolist()
    found = [model.encode_image(torch.empty(2, 3, height, width, device="meta"))]
    if text:
        tokens = torch.zeros(2, text.get("context_length", 77), dtype=torch.long, device="meta")
        found.append(model.encode_text(tokens))
    sum(each.sum() for each in found).backward()

    assert [each.shape for each in found] == [(2, config["embed_dim"])] * len(found)
    gradients = [weight for weight in model.parameters() if weight.grad is not None]
    assert len(gradients) > 10
    assert all(weight.grad.shape == weight.shape for weight in gradients)


PICTURED = sorted({name for name in ALIASES.values() if MODELS[name].image_size})


@pytest.mark.parametrize("name", PICTURED)
def test_every_alias_of_a_model_of_pictures_has_the_shapes_it_is_told_of(name: str) -> None:
    config = config_of(find_model(name))

    assert config["embed_dim"] == MODELS[name].dimension
    check_shapes(config)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", open_clip.list_models())
def test_every_architecture_of_open_clip_embeds_in_its_shape(architecture: str) -> None:
    check_shapes(config_of(find_model(f"{architecture}#scratch")))


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


@pytest.mark.parametrize(("alias", "dimension"), FINETUNER.items())
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
