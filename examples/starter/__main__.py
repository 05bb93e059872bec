"""`make starter`: pre-trains the starter model from random weights on Twemoji and OpenMoji, with Attune itself.

Leaves the weights, the record of their training and the model card in `attune/models/starter/`. Everything else of the
run stays in `.starter/`. Takes about a quarter of an hour on two cores.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from docarray import DocList

from attune.models.open_clip_files import WEIGHTS
from attune.models.source import STARTER
from attune.schemas import TrainingExample
from client import AttuneClient
from client.run import Run
from examples.emoji.data import load, split
from examples.starter.card import starter_card
from flows.background import running

FOLDER = Path(".starter")
# A constant rate and no average: annealed weights do better as they are (recall@5 of 0.71 on Noto after 600 steps), but
# they hardly learn a new style any more. These end as high after fine-tuning, from a shorter pre-training.
SETTINGS: dict[str, Any] = {
    "epochs": 27,
    "batch_size": 256,
    "learning_rate": 1e-3,
    "scheduler": "constant_with_warmup",
    "weight_decay": 0.1,
    "warmup_ratio": 0.15,
    "augmentation": "strong",
    "ema_decay": 0,
    "interpolation": False,
    "early_stopping_patience": 0,
    "val_split": 0.03,
    "artifact_precision": "fp16",
    "seed": 0,
}


def main() -> None:
    """Pre-trains and replaces the weights in the package."""
    with running(Path("flows/finetune.yml"), FOLDER / "home", FOLDER / "service.log") as service:
        attune = AttuneClient(service.grpc)
        attune.push("emoji-art", DocList[TrainingExample](ungrouped(load("twemoji") + load("openmoji"))))
        attune.push("noto-test", DocList[TrainingExample](ungrouped(split(load("noto"))[1])))
        data = {"train_data": "emoji-art", "eval_data": "noto-test"}
        run = attune.fit("starter#scratch", run_name="starter", wait=True, **data, **SETTINGS)
        artifact = run.save_artifact(FOLDER / "artifact")
        record = training_record(run)
    shutil.copy(artifact / WEIGHTS, STARTER)
    (STARTER / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (STARTER / "README.md").write_text(starter_card(record))


def ungrouped(examples: list[TrainingExample]) -> list[TrainingExample]:
    """The same pictures, each a group of its own: the starter is to know a concept from any artist's drawing of it.

    So the validation part holds single drawings of concepts that are trained on, and not whole concepts.
    """
    return [TrainingExample(image=e.image, captions=e.captions, source=e.source) for e in examples]


def training_record(run: Run) -> dict[str, Any]:
    """What it was made with and how training went: settings, machine, curve by epoch, zero-shot figures."""
    events = run.download_file("events.jsonl", FOLDER / "events.jsonl").read_text().splitlines()
    environment = run.download_file("environment.json", FOLDER / "environment.json")
    validations = [event["values"] for event in map(json.loads, events) if event["kind"] == "validation"]
    return {
        "command": "make starter",
        "settings": run.config,
        "environment": json.loads(environment.read_text()),
        "training": run.document.training.model_dump(exclude={"id"}),
        "curve": [
            {"epoch": int(v["epoch"]), "loss": round(v["loss"], 4), "validation_mean_recall": round(v["mean_recall"], 4)}
            for v in validations
        ],
        "zero_shot_noto": {key: round(value, 4) for key, value in run.document.evaluation.after.items()},
        "zero_shot_images": run.document.evaluation.images,
        "zero_shot_captions": run.document.evaluation.captions,
    }


if __name__ == "__main__":
    main()
