"""One training in two processes of this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attune.errors import DataError, SettingsError, TrainingStopped
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, TrainingExample
from attune.stages import run_stage
from tests.attune.embeddings import sounds
from tests.attune.sentences import save_plain
from tests.attune.singles import sentences, shapes
from tests.attune.trained import of_kind, start, validations
from tests.conftest import labelled_examples

SETTINGS = {
    "batch_size": 15,  # 66 or so pictures are 5 batches of 13 or 14: shares are unequal
    "learning_rate": 3e-4,
    "multi_positive": True,  # masks have to fit as well
    "ema_decay": 0.9,
    "self_distillation": 0.4,
    "augmentation": "strong",  # of a picture, whichever process has it
    "early_stopping_patience": 0,
    "interpolation": False,
}


def wait_for_epochs(folder: RunFolder, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while len(validations(folder)) <= count and time.monotonic() < deadline:
        time.sleep(0.01)


def epoch_losses(folder: RunFolder, kind: str) -> dict[float, float]:
    return {epoch: loss for epoch, loss, _ in validations(folder, kind)}


def test_two_processes_train_as_one_and_stop_when_asked_to(model: Path) -> None:
    alone, together = (start(f"in-{count}", model, processes=count, epochs=16, **SETTINGS) for count in (1, 2))
    one = run_stage("train", "in-1").training

    def ask() -> None:
        wait_for_epochs(together, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(TrainingStopped, match=r"asked to stop and did, after step \d+ of 80"):
        run_stage("train", "in-2")
    asking.join()

    assert (together.load().state, together.load().error) == ("TRAINING", "")
    position = torch.load(together.checkpoints / "within.pt", weights_only=True)["position"]
    assert position["epoch"] > 2
    assert 0 < position["step"] <= 5
    two = run_stage("train", "in-2").training

    for kind, epochs in (("validation", 17), ("average", 16)):
        assert epoch_losses(together, kind) == pytest.approx(epoch_losses(alone, kind), abs=1e-4)
        assert len(validations(together, kind)) == epochs
    assert (two.steps, two.epochs) == (one.steps, one.epochs) == (80, 16)
    assert of_kind(together, "progress")[-1].values["step"] == 80
    last = [torch.load(run.checkpoints / "last.pt", weights_only=True)["model"] for run in (alone, together)]
    for name, value in last[0].items():
        torch.testing.assert_close(last[1][name], value, rtol=0, atol=1e-3)
    assert sorted(path.name for path in together.checkpoints.iterdir()) == [
        "best.safetensors",
        "chosen.safetensors",
        "last.pt",
        "optimizer.safetensors",
        "recipe.json",
        "start.safetensors",
    ]


LEARNT: dict[str, tuple[Callable[[], list[TrainingExample]], dict[str, object]]] = {
    "captions by class": (labelled_examples, {"loss": "ArcFaceLoss"}),
    "single pictures": (partial(shapes, 48), {"loss": "TripletMarginLoss", "sampler": "class"}),
    "single texts": (partial(sentences, 48), {"loss": "SimCSELoss"}),
    "embeddings": (partial(sounds, 48), {"model_options": {"hidden_sizes": [16]}}),
}


@pytest.mark.parametrize("case", LEARNT)
def test_two_processes_train_as_one_on_whatever_there_is(
    attune_home: Path, tiny_vit: Path, tmp_path: Path, push: Callable[..., DatasetReport], case: str
) -> None:
    make, settings = LEARNT[case]
    push("shapes", make())
    # Dropout would be another in each process. This one is there, and so rare that it never drops anything.
    bert = save_plain(tmp_path / "bert", hidden_dropout_prob=1e-9, attention_probs_dropout_prob=1e-9)
    model = {"single texts": bert, "embeddings": "mlp"}.get(case, tiny_vit)
    common = {"learning_rate": 3e-4, "epochs": 2, "ema_decay": 0, "batch_size": 15, **settings}

    runs = [start(f"in-{count}", model, processes=count, **common) for count in (1, 2)]
    for run in runs:
        run_stage("train", run.reference)

    alone, together = (torch.load(run.checkpoints / "last.pt", weights_only=True) for run in runs)
    began = load_file(runs[0].start_weights)
    assert max(abs(value - began[name]).max() for name, value in alone["model"].items()) > 3e-4
    assert bool(alone.get("loss")) == (case == "captions by class")
    for part in ("model", "loss"):
        for name, value in alone.get(part, {}).items():
            torch.testing.assert_close(together[part][name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_processes_whose_launcher_was_killed_stop_by_themselves(model: Path) -> None:
    folder = start("orphans", model, processes=2, epochs=10_000, **SETTINGS)
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "attune", "train", "orphans"])
    wait_for_epochs(folder, 1)

    process.kill()
    process.wait()

    deadline = time.monotonic() + 30
    while not (folder.checkpoints / "outcome.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "asked to stop" in (folder.checkpoints / "outcome.json").read_text()
    assert (folder.checkpoints / "within.pt").exists()


def test_what_one_process_finds_wrong_reaches_the_caller(model: Path, shifted: None) -> None:
    folder = start("refused-in-two", model, train_data="shifted", processes=2)

    # The main process alone looks at the pairs; the other one waits for it in the first step.
    with pytest.raises(DataError, match="Likely captions are shifted by a row"):
        run_stage("train", "refused-in-two")

    assert folder.load().state == "FAILED"
    assert not (folder.checkpoints / "outcome.json").exists()


def test_more_processes_than_cores_are_refused_before_anything_is_loaded(model: Path) -> None:
    cores = os.cpu_count()
    folder = start("too-many", model, processes=cores + 1, **SETTINGS | {"batch_size": cores + 1})

    with pytest.raises(
        SettingsError, match=rf"processes = {cores + 1} is more than the {cores} cores .* Lower it to {cores}"
    ):
        run_stage("train", "too-many")

    assert not any("loading" in event.message for event in folder.events())
