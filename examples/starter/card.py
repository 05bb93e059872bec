"""The starter's model card, from the record of its training."""

import json
from typing import Any

from attune.metrics import DIRECTIONS


def starter_card(record: dict[str, Any]) -> str:
    """Markdown: what it is, where it comes from, how well it does, how to make it again."""
    training, figures = record["training"], record["zero_shot_noto"]
    machine = record["environment"]
    rows = "\n".join(
        f"| {direction.replace('_', ' ')} | "
        + " | ".join(f"{figures[f'{direction}_{name}']:.3f}" for name in ("recall@1", "recall@5", "recall@10", "mrr"))
        + " |"
        for direction in DIRECTIONS
    )
    curve = record["curve"]
    shown = [point for point in curve if point["epoch"] % 5 == 0 or point is curve[-1]]
    points = "\n".join(
        f"| {p['epoch']} | {p['loss']:.3f} | {p['validation_mean_recall']:.3f} |" for p in shown if p["epoch"]
    )
    return f"""# starter

A small CLIP for emoji art, pre-trained by Attune from random weights: a timm `ese_vovnet19b_slim` image tower at 64
pixels and a text transformer of 3 layers with a vocabulary of 4,096. 5 million parameters, stored as float16.

It knows the drawings of Twemoji and OpenMoji and their English names and tags: it is there so that Attune can be tried
and tested offline in minutes. It is no model of the world; photographs mean nothing to it.

It is a start, not an end: the learning rate stayed at its peak, so the weights still move easily and take up a new style
in a few dozen steps. Longer training that ends at a rate of zero gives better figures as they come, and weights that
fine-tuning hardly improves.

Trained on `examples/emoji` (Twemoji, CC BY 4.0; OpenMoji, CC BY-SA 4.0; names and tags from emojibase, MIT). The weights
are published under CC BY-SA 4.0.

## Zero-shot on a third style

On {record["zero_shot_images"]} emoji as Noto draws them, with {record["zero_shot_captions"]} captions. It saw the same
concepts drawn by the other two artists, and no Noto picture.

| direction | recall@1 | recall@5 | recall@10 | MRR |
|---|---|---|---|---|
{rows}

## Training

`{record["command"]}`, seed {record["settings"]["seed"]}: {training["steps"]} steps in {training["seconds"]:.0f} s on
{machine["processor"]}, {machine["cores"]} cores, {training["precision"]}, torch {machine["packages"]["torch"]}. The
whole record is in `training.json`.

| epoch | loss | validation mean recall |
|---|---|---|
{points}

```json
{json.dumps(record["settings"], indent=2)}
```
"""
