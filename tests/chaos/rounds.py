"""A run, a fault at a random moment of it, and what is left afterwards."""

import hashlib
import random
import time
from collections import Counter
from pathlib import Path

from attune.runs.events import read_events
from attune.schemas import FinetuningRun
from attune.stages import STAGES
from client import AttuneClient
from client.run import Run
from tests.chaos import processes
from tests.chaos.faults import Scene
from tests.chaos.patience import PATIENCE_SECONDS, patient
from tests.processes import wait_until

EPOCHS = 20
SETTINGS = {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 1e-5, "early_stopping_patience": 0}
"""Some seconds of training with a checkpoint at each of many ends of epochs."""
ORDER = [stage.state for stage in STAGES.values()]
LAST_STATE = "state FINISHED"


def start_run(attune: AttuneClient, model: Path, name: str) -> Run:
    """A run as all of them are; the same data, settings and seed give the same weights to the last bit."""
    return attune.fit(str(model), "shapes", run_name=name, **SETTINGS)


def at_random(folder: Path, stage: str, undisturbed: FinetuningRun, chance: random.Random) -> None:
    """Waits for a random moment of a run's stage."""
    epoch = chance.randrange(EPOCHS)
    state = f"state {STAGES[stage].state}"

    def is_there() -> bool:
        events = list(read_events(folder))
        if stage == "train":
            return any(event.kind == "validation" and event.values["epoch"] >= epoch for event in events)
        return any(event.message in (state, LAST_STATE) for event in events)

    if not wait_until(is_there, PATIENCE_SECONDS):
        raise TimeoutError(f"{folder.name} did not get to {stage}")
    time.sleep(chance.random() * undisturbed.stage_seconds[stage] / (EPOCHS if stage == "train" else 1))


def finish(run: Run) -> None:
    """Follows the run to its end, as its user would; one that failed is resumed."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := patient(run.status)) != "FINISHED":
        if state == "FAILED":
            patient(run.resume)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{run.name} is {state} after {PATIENCE_SECONDS} s")
        time.sleep(0.2)


def losses(scene: Scene, undisturbed: Path, fails: bool) -> list[str]:
    """What a fault has cost; nothing, if all is well."""
    found = []
    run, other = (
        FinetuningRun.model_validate_json((folder / "run.json").read_text()) for folder in (scene.folder, undisturbed)
    )
    if _weights(scene.folder) != _weights(undisturbed):
        found.append("other weights than those of a run that nothing disturbed")
    if run.evaluation.after != other.evaluation.after or run.training.best_recall != other.training.best_recall:
        found.append("other figures than those of a run that nothing disturbed")
    if not wait_until(lambda: not any(processes.stage_child(scene.home, stage, run.reference) for stage in STAGES), 60):
        found.append("a process is still at work on the finished run")
    return found + _told_wrongly(scene, fails)


def _told_wrongly(scene: Scene, fails: bool) -> list[str]:
    found = []
    events = list(read_events(scene.folder))
    told = Counter((event.kind, event.values["epoch"]) for event in events if event.kind in ("validation", "average"))
    if twice := [line for line, times in told.items() if times > 1]:
        found.append(f"told twice: {twice[:3]}")
    if missing := set(range(EPOCHS + 1)) - {epoch for kind, epoch in told if kind == "validation"}:
        found.append(f"epochs not told: {sorted(missing)}")
    steps = [event.values["step"] for event in events if event.kind == "progress"]
    if steps != sorted(set(steps)):
        found.append("steps told twice, or out of order")
    states = [event.message.removeprefix("state ") for event in events if event.kind == "state"]
    order = [ORDER.index(state) for state in states if state in ORDER]
    if order != sorted(order):
        found.append(f"a stage was done again after a later one had begun: {states}")
    if states[-1:] != ["FINISHED"]:
        found.append("the history does not end with the run")
    if not fails and any(state.startswith("FAILED") for state in states):
        found.append(f"failed of it: {states}")
    return found + scene.witness.losses(scene.home, [event.number for event in events])


def _weights(folder: Path) -> str:
    return hashlib.sha256((folder / "artifact" / "open_clip_model.safetensors").read_bytes()).hexdigest()
