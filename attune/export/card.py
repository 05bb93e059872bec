"""The model card in the artifact."""

import json

from attune.comparison import comparison
from attune.schemas import FinetuningRun


def model_card(run: FinetuningRun) -> str:
    """Markdown: what it is, how to load it, before and after, how to make it again."""
    settings = {key: value for key, value in run.settings.items() if value is not None}
    return f"""# {run.name}

{run.settings["model"]} fine-tuned by Attune on `{run.settings["train_data"]}` with {run.settings["loss"]}.
{run.description}

```python
import open_clip
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:PATH_OF_THIS_FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:PATH_OF_THIS_FOLDER")
```

## Before and after

On {run.evaluation.images} held-out pictures with {run.evaluation.captions} captions. recall@k is the share of queries
with a right answer among the first k, as in CLIP_benchmark. The difference has a 95 % interval (paired bootstrap over
pictures).

{comparison_table(run)}

## Made with

Chosen by recall on the validation part: {chosen_weights(run)}. {run.training.steps} steps in {run.training.seconds:.0f} s
on {run.training.device}, {run.training.precision}.

```json
{json.dumps(settings, indent=2)}
```

What was `auto` came to:

```json
{json.dumps(run.training.recipe, indent=2)}
```
"""


def comparison_table(run: FinetuningRun) -> str:
    """Before, after and difference of every metric, as a Markdown table."""
    rows = [
        f"| {row.label} | {row.before:.3f} | {row.after:.3f} | {row.difference} |" for row in comparison(run.evaluation).rows
    ]
    return "\n".join(["| metric | before | after | difference |", "|---|---|---|---|", *rows])


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
