"""The models that there are by name: what each is, how large, and where its weights come from. Loads no torch.

Of timm's image models, over 1,800 with weights, it lists `IMAGE_MODELS`; any other is a model as `timm/NAME` too.

`python -m attune.models.catalog` writes the table anew from the libraries' own lists, in some minutes.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from attune.choices import one_of
from attune.errors import SettingsError

FILE = Path(__file__).parent / "catalog.json"
TASKS = ("text-to-image", "image-to-image", "text-to-text", "embedding-to-embedding")

ALIASES = {
    "clip-base-en": "ViT-B-32#openai",
    "clip-large-en": "ViT-L-14#openai",
    "clip-base-multi": "xlm-roberta-base-ViT-B-32#laion5b_s13b_b90k",
    "resnet-base": "timm/resnet50.tv_in1k",
    "resnet-large": "timm/resnet152.tv_in1k",
    "efficientnet-base": "timm/efficientnet_b4.ra2_in1k",
    "efficientnet-large": "timm/tf_efficientnet_b7.aa_in1k",
    "openai/clip-vit-base-patch32": "ViT-B-32#openai",
    "openai/clip-vit-base-patch16": "ViT-B-16#openai",
    "openai/clip-vit-large-patch14": "ViT-L-14#openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336#openai",
    "bert-base-en": "bert-base-cased",
    "bert-base-multi": "bert-base-multilingual-cased",
    "sbert-base-en": "sentence-transformers/msmarco-distilbert-base-v3",
    "distiluse-base-multi": "sentence-transformers/distiluse-base-multilingual-cased-v2",
    "jina-embedding-t-en-v1": "jinaai/jina-embedding-t-en-v1",
    "jina-embedding-s-en-v1": "jinaai/jina-embedding-s-en-v1",
    "jina-embedding-b-en-v1": "jinaai/jina-embedding-b-en-v1",
    "jina-embedding-l-en-v1": "jinaai/jina-embedding-l-en-v1",
}
"""Names of Jina Finetuner and of OpenAI on the Hugging Face hub, and what they are here."""

TIMM = "timm/"
"""Before the names of timm's models, here as on the Hugging Face hub."""

IMAGE_MODELS = (
    "convnext_base.fb_in22k_ft_in1k",
    "convnext_tiny.dinov3_lvd1689m",
    "convnext_tiny.in12k_ft_in1k",
    "efficientnet_b0.ra_in1k",
    "efficientnet_b4.ra2_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "resnet152.a1_in1k",
    "resnet152.tv_in1k",
    "resnet18.a1_in1k",
    "resnet50.a1_in1k",
    "resnet50.tv_in1k",
    "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "tf_efficientnet_b7.aa_in1k",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_base_patch14_reg4_dinov2.lvd142m",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch16_224.dino",
    "vit_base_patch16_dinov3.lvd1689m",
    "vit_large_patch14_dinov2.lvd142m",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_small_patch16_224.dino",
    "vit_small_patch16_dinov3.lvd1689m",
)
"""Those of timm's that are most in use: what Jina Finetuner had, what is small, and the self-supervised DINO."""


class ModelDescription(NamedTuple):
    """A model and its weights.

    Attributes:
        name: what `fit(model=...)` takes.
        task: one of `TASKS`.
        dimension: of its embeddings; 0 of an `mlp`, whose are as long as those that it is given.
        image_size: side in pixels of the pictures that it takes; 0 if it takes none.
        context_length: tokens of a text that it reads at most; 0 if it reads none.
        parameters: of all of it; None of an `mlp`, and of a text encoder that has to be fetched from the hub.
        weights: where they come from: a repository on the Hugging Face hub, an address, or this package.
        licence: of the weights in this package; empty for others, whose own page says it.
        aliases: other names of it.
    """

    name: str
    task: str
    dimension: int
    image_size: int
    context_length: int
    parameters: int | None
    weights: str
    licence: str
    aliases: tuple[str, ...]


def describe_models(task: str | None = None) -> list[ModelDescription]:
    """All models by name, the smallest first. Besides these, folders, checkpoints and finished runs are models.

    Args:
        task: only those for it.

    Raises:
        SettingsError: if there is no such task.
    """
    try:
        wanted = TASKS if task is None else (one_of(task, TASKS),)
    except ValueError as error:
        raise SettingsError(f"task = {task!r} {error}") from None
    return [model for model in _catalog() if model.task in wanted]


def hub_models() -> dict[str, str]:
    """Text encoders that are fetched from the Hugging Face hub: repository by name."""
    return {model.name: model.weights for model in describe_models("text-to-text")}


@cache
def _catalog() -> tuple[ModelDescription, ...]:
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    others = {row["name"]: tuple(alias for alias, name in ALIASES.items() if name == row["name"]) for row in rows}
    return tuple(ModelDescription(**row, aliases=others[row["name"]]) for row in rows)


def _described() -> list[dict[str, Any]]:
    """The rows of the table, from open_clip, timm and the model in this package; others stay as they are written."""
    import open_clip

    from attune.models.source import STARTER

    found = [row for row in json.loads(FILE.read_text(encoding="utf-8")) if row["task"] in TASKS[2:]]
    found.append(_row("starter", open_clip.get_model_config(f"local-dir:{STARTER}"), "this package", "CC BY-SA 4.0"))
    configs = {architecture: open_clip.get_model_config(architecture) for architecture in open_clip.list_models()}
    for architecture, tag in open_clip.list_pretrained():
        source = open_clip.get_pretrained_cfg(architecture, tag)
        weights = source.get("hf_hub", "").strip("/") or source.get("url", "")
        found.append(_row(f"{architecture}#{tag}", configs[architecture], weights, ""))
    found.extend(map(_image_row, IMAGE_MODELS))
    return sorted(found, key=lambda row: (row["parameters"] or math.inf, row["name"]))


def _row(name: str, config: dict[str, Any], weights: str, licence: str) -> dict[str, Any]:
    from attune.models.shell import shell

    side = config["vision_cfg"].get("image_size", 224)
    model = shell(config)
    return {
        "name": name,
        "task": "text-to-image",
        "dimension": config["embed_dim"],
        "image_size": side[0] if isinstance(side, list) else side,
        "context_length": config["text_cfg"].get("context_length", 77),
        "parameters": sum(parameter.numel() for parameter in model.parameters()) if model is not None else None,
        "weights": weights,
        "licence": licence,
    }


def _image_row(name: str) -> dict[str, Any]:
    from timm.models import get_pretrained_cfg

    from attune.models.clip import config_of
    from attune.models.shell import shell
    from attune.models.source import find_model

    config, known = config_of(find_model(TIMM + name)), get_pretrained_cfg(name)
    return {
        "name": TIMM + name,
        "task": "image-to-image",
        "dimension": config["embed_dim"],
        "image_size": config["image_size"][0],
        "context_length": 0,
        "parameters": sum(parameter.numel() for parameter in shell(config).parameters()),
        "weights": known.hf_hub_id or known.url,
        "licence": "",
    }


if __name__ == "__main__":
    FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in _described()) + "\n]\n", encoding="utf-8")
