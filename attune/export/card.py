"""The model card in the artifact."""

import json

from attune.metrics import DIRECTIONS, KS
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

Best of epochs 0 to {run.training.epochs} by validation recall: {run.training.best_epoch}. {run.training.steps} steps in
{run.training.seconds:.0f} s on {run.training.device}, {run.training.precision}.

```json
{json.dumps(settings, indent=2)}
```
"""


def comparison_table(run: FinetuningRun) -> str:
    """Before, after and difference of every metric, as a Markdown table."""
    result = run.evaluation
    lines = ["| metric | before | after | difference |", "|---|---|---|---|"]
    for direction in DIRECTIONS:
        for name in [*(f"recall@{k}" for k in KS), "mrr", "median_rank"]:
            key = f"{direction}_{name}"
            before, after = result.before[key], result.after[key]
            interval = ""
            if key in result.difference_low:
                interval = f" ({result.difference_low[key]:+.3f} to {result.difference_high[key]:+.3f})"
            label = f"{direction.replace('_', ' ')} {name.replace('_', ' ')}"
            lines.append(f"| {label} | {before:.3f} | {after:.3f} | {after - before:+.3f}{interval} |")
    return "\n".join(lines)
