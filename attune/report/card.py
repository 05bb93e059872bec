"""The model card in the artifact: Markdown, with the front matter that the Hugging Face hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from open_clip.pretrained import get_pretrained_cfg
from timm.models import get_pretrained_cfg as get_timm_cfg

from attune.evaluation.comparison import ZERO_SHOT, comparison, sides
from attune.figures import MISSING, chosen_by, figure
from attune.kinds import EMBEDDING, IMAGE, MATCH, SINGLE_EMBEDDING, SINGLE_IMAGE, SINGLE_TEXT, TEXT
from attune.metrics import OF_AT_R
from attune.models.catalog import ALIASES, TIMM, hub_models
from attune.models.library import Library, library_of
from attune.report.verdict import verdict
from attune.schemas import FinetuningRun


def model_card(run: FinetuningRun, config: Mapping[str, Any] | None = None) -> str:
    """Markdown: what it is, how to load it, its figures, how to make it again.

    Of a model that was only evaluated it leaves out what is about training, and what there was before.

    Args:
        run: that made or evaluated it.
        config: of the model, `attune.models.clip.Clip.config`; without it, open_clip opens it.
    """
    config = config or {}
    library = library_of(config)
    gem = config.get("pooler") == "gem"
    whole = library != "mlp" and not (gem and library == "sentence_transformers")
    parts = [
        f"---\n{_front_matter(run, library, whole)}\n---\n\n# {run.name}",
        _introduction(run),
        _LOADING_OF_GEM[library] if gem else _LOADING[library],
        _TEXT_TOWER if config.get("text_cfg", {}).get("hf_model_name") else "",
        _shorter(run),
        _figures(run),
        _training(run) if run.training.device else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_LOADING = {
    "open_clip": """```python
import open_clip
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:PATH_OF_THIS_FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:PATH_OF_THIS_FOLDER")
```""",
    "timm": """```python
import timm
model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()
preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
```

`model(preprocess(picture)[None])` is a picture's embedding, before it is scaled to unit length.""",
    "sentence_transformers": """```python
from sentence_transformers import SentenceTransformer
embeddings = SentenceTransformer("PATH_OF_THIS_FOLDER").encode(["a text"])
```""",
    "mlp": """It takes embeddings of the model that made those it was trained on. torch and safetensors open it:

```python
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

config = json.loads(Path("PATH_OF_THIS_FOLDER/mlp_config.json").read_text())
weights = {name: one.float() for name, one in load_file("PATH_OF_THIS_FOLDER/model.safetensors").items()}


def tuned(given: torch.Tensor) -> torch.Tensor:
    given = F.normalize(given, dim=-1) * config["input_dim"] ** 0.5
    found, hidden = given @ weights["proj.weight"].T, given
    for number in range(len(config["hidden_sizes"])):
        hidden = F.gelu(hidden @ weights[f"layers.{number}.weight"].T + weights[f"layers.{number}.bias"])
    if config["hidden_sizes"]:
        found = found + hidden @ weights["head.weight"].T + weights["head.bias"]
    return F.normalize(found, dim=-1)
```

`tuned(given)` are tuned embeddings, of unit length, of given ones: float32, one a row.""",
}

_TEXT_TOWER = """open_clip asks the Hugging Face hub what the text tower is. Without a network, tell it:

```python
import json
text = json.load(open("PATH_OF_THIS_FOLDER/open_clip_config.json"))["model_cfg"]["text_cfg"]
text |= {"hf_model_name": "PATH_OF_THIS_FOLDER/text_tower_config.json", "hf_model_pretrained": False}
model = open_clip.create_model("local-dir:PATH_OF_THIS_FOLDER", text_cfg=text)
```"""

_LOADING_OF_GEM = {
    "timm": f"""{_LOADING["timm"]}

It pools by the generalised mean (GeM), which timm has not. Attune puts it in:

```python
from attune.models.image_encoder import pool_by_generalised_mean
pool_by_generalised_mean(model)
```""",
    "sentence_transformers": """```python
from attune.models.clip import load_clip
embeddings = load_clip("PATH_OF_THIS_FOLDER").encode_texts(["a text"])
```

It pools by the generalised mean (GeM), which sentence-transformers does not have: it refuses the folder.""",
}


_OF_RETRIEVAL = "recall@k is the share of queries\nwith a right answer among the first k, as in CLIP_benchmark."
_OF_SCORES = "Figures are correlations of\ncosine similarities with the scores of pairs."


def _shorter(run: FinetuningRun) -> str:
    """Which beginnings of the embeddings are good ones too; empty if none was trained to be."""
    dims = (run.settings.get("model_options") or {}).get("matryoshka_dims") or []
    if not dims or run.training.chosen == "start":
        return ""
    return (
        f"The first {' or '.join(map(str, dims))} numbers of each embedding, scaled to unit length again, are shorter\n"
        "embeddings that it was trained for (Matryoshka representation learning, arXiv:2205.13147)."
    )


def comparison_table(run: FinetuningRun) -> str:
    """Figures of both models and their difference, as a Markdown table; of one model, its figures with intervals."""
    rows = [row for row in comparison(run.evaluation).rows if row.after is not None]
    if not run.evaluation.before:
        lines = [f"| {row.label} | {figure(row.after)} | {row.interval or MISSING} |" for row in rows]
        return "\n".join(["| metric | value | 95 % interval |", "|---|---:|---:|", *lines])
    lines = [f"| {row.label} | {figure(row.before)} | {figure(row.after)} | {row.difference} |" for row in rows]
    heading = f"| metric | {' | '.join(sides(run))} | difference |"
    return "\n".join([heading, "|---|---:|---:|---:|", *lines])


def chosen_weights(run: FinetuningRun) -> str:
    """Which weights were chosen, in words."""
    training = run.training
    of_epoch = f"of epoch {training.best_epoch} of {training.epochs}"
    return {
        "start": "the starting weights: nothing that training found was better",
        "weights": f"the weights {of_epoch}",
        "average": f"the running average of the weights {of_epoch}",
        "interpolated": f"{training.chosen_share:.0%} of the way from the starting weights to those {of_epoch}",
    }[training.chosen]


def begun_with(run: FinetuningRun) -> str:
    """The run whose model this one trained further, in words; empty if it began with another model."""
    earlier = run.settings.get("model_artifact")
    if not earlier:
        return ""
    return f"the model of the run {earlier}" + ", with its optimizer's state" * bool(run.settings.get("continue_optimizer"))


_TASKS = {
    IMAGE: ("image-text-retrieval", "zero-shot-image-classification"),
    TEXT: ("text-retrieval", "sentence-similarity"),
    MATCH: ("image-retrieval", "image-feature-extraction"),
    EMBEDDING: ("embedding-retrieval", "feature-extraction"),
    SINGLE_IMAGE: ("image-retrieval", "image-feature-extraction"),
    SINGLE_TEXT: ("text-retrieval", "sentence-similarity"),
    SINGLE_EMBEDDING: ("embedding-retrieval", "feature-extraction"),
}
"""What is measured, and what the model is for, by the kind of data, in the hub's words."""


def _front_matter(run: FinetuningRun, library: Library, whole: bool) -> str:
    """YAML. A license is nobody's to guess, and a base model is named only where the hub has it under a name.

    Args:
        run: that made or evaluated the model.
        library: the model's.
        whole: whether the library opens it as it is.
    """
    name = library.replace("_transformers", "-transformers")
    data, kind = _data_name(run.settings), run.evaluation.kind
    retrieval, pipeline = _TASKS[kind]
    graded = "spearman" in run.evaluation.after
    task = "sentence-similarity" if graded and kind is TEXT else retrieval
    results = [
        EvalResult(
            task_type="zero-shot-image-classification" if row.metric in ZERO_SHOT else task,
            dataset_type=data,
            dataset_name=f"{data} (held out)" if not run.settings.get("eval_data") else data,
            metric_type=row.metric,
            metric_value=row.after,
        )
        for row in comparison(run.evaluation).rows
        if row.after is not None
    ]
    front = ModelCardData(
        library_name=name if whole else None,
        pipeline_tag=pipeline,
        tags=["clip" if library == "open_clip" else name, "attune"],
        base_model=_base_model(str(run.settings.get("model", ""))),
        model_name=run.name,
        eval_results=results or None,
    )
    text: str = front.to_yaml()
    return text


def _base_model(name: str) -> str | None:
    if name.startswith(TIMM):
        known = get_timm_cfg(name.removeprefix(TIMM)) if "#" not in name else None
        return getattr(known, "hf_hub_id", None)
    architecture, _, weights = name.partition("#")
    repository = hub_models().get(ALIASES.get(architecture, architecture))
    if repository:
        return None if weights == "scratch" else repository
    known = get_pretrained_cfg(architecture.replace("/", "-"), weights)
    return str(known.get("hf_hub", "")).strip("/") or None


def _introduction(run: FinetuningRun) -> str:
    model, data = run.settings.get("model"), run.settings.get("train_data")
    said = f"{model}, evaluated by Attune on `{_data_name(run.settings)}`."
    if run.training.device:
        start = begun_with(run).replace("the", "The", 1) or model
        loss = run.training.recipe.get("loss", run.settings.get("loss"))
        said = f"{start} fine-tuned by Attune on `{data}` with {loss}."
    return f"{said}\n{run.description}".strip()


def _figures(run: FinetuningRun) -> str:
    result, kind = run.evaluation, run.evaluation.kind
    headline, sentences = verdict(result, bool(run.training.device))
    graded = "spearman" in result.after
    title = " and ".join(sides(run)).capitalize() if result.before else "Evaluation"
    of_what = "of the difference, by paired" if result.before else "by"
    parts = [
        f"## {title}",
        " ".join([f"{headline}." if headline else "", *sentences]).strip(),
        *(f"> **Note:** {warning}" for warning in result.warnings),
        f"On {kind.counted(result.items, result.belonging, held_out=True)}. "
        f"{_OF_SCORES if graded else _OF_RETRIEVAL}{f' {OF_AT_R}'.rstrip() if kind.is_single else ''}\nIntervals are 95 %,\n"
        f"{of_what} bootstrap over {kind.items}.",
        comparison_table(run),
    ]
    return "\n\n".join(parts)


def _training(run: FinetuningRun) -> str:
    training = run.training
    settings = {key: value for key, value in run.settings.items() if value is not None}
    graded = "spearman" in run.evaluation.after
    name = chosen_by(run.evaluation.kind.is_single, graded)
    figure = {"spearman": "Spearman's correlation", "map@r": "MAP@R"}.get(name, "recall")
    chosen_on = f"`{run.settings['val_data']}`" if run.settings.get("val_data") else "the validation part"
    return f"""## Made with

Chosen by {figure} on {chosen_on}: {chosen_weights(run)}. {training.steps} steps in {training.seconds:.0f} s
on {training.device}, {training.precision}.

```json
{json.dumps(settings, indent=2)}
```

What was `auto` came to:

```json
{json.dumps(training.recipe, indent=2)}
```"""


def _data_name(settings: dict[str, Any]) -> str:
    """The dataset that was measured on, or a part of it was."""
    return str(settings.get("eval_data") or settings.get("train_data") or "")
