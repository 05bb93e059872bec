"""Models by the names that runs give them: those of `attune.models.source`, and finished runs.

A run keeps the name it was given. Where that leads is looked up whenever the model is loaded.
"""

from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

from attune.errors import ModelError, RunNotFound
from attune.files import sha256
from attune.models import timm_folder
from attune.models.clip import Clip, load_clip
from attune.models.open_clip_files import WEIGHTS as OF_OPEN_CLIP
from attune.models.source import find_model
from attune.names import is_reference, reference_of
from attune.runs.folder import RunFolder, runs_folder
from attune.runs.listing import listed_runs
from attune.service.roots import local_path, request_roots
from attune.settings import ModelOptions

WEIGHTS = (OF_OPEN_CLIP, timm_folder.WEIGHTS)
"""What the file of an artifact's weights is called."""

RUNS_SHOWN = 5
"""Of those whose names are nearest to one that is no model."""


def locate(model: str) -> str:
    """The name to load a model by: its own, or the folder of a finished run's artifact.

    Raises:
        ModelError: if there is no such model, and no run of that name with one.
    """
    unknown: ModelError | None = None
    try:
        # Of the hub's there may be one of any name with a slash, so a run of that name comes first.
        if not (find_model(model, request_roots()).hub and "/" in model):
            return model
    except ModelError as error:
        unknown = error
    try:
        folder = RunFolder.open(model)
    except RunNotFound:
        if unknown is None:
            return model
        raise ModelError(f"{unknown}{_finished_runs(model)}") from None
    if not folder.artifact.is_dir():
        raise ModelError(_without_model(folder))
    return str(folder.artifact)


def load_named(model: str, device: str = "cpu", seed: int = 0, options: ModelOptions | None = None) -> Clip:
    """Loads a model by the name a run gives it, which it keeps; arguments and errors as of `load_clip`."""
    return replace(load_clip(locate(model), device, seed, options), name=model)


def ancestors(model: str, of: str = "") -> list[RunFolder]:
    """The finished runs that a model comes from: the one whose artifact it is, the one that began with, and so on.

    A copy of an artifact, wherever it lies, is known by its weights.

    Args:
        model: as in `locate`.
        of: when the run that begins with it was created, ISO 8601; an older run of that name is meant then, not one that
            took the name since.
    """
    try:
        path = Path(locate(model)).expanduser().resolve()
        if path.parents[2:3] == (runs_folder(),) and path.name == "artifact":
            folder: RunFolder | None = RunFolder.open(reference_of(path.parent.parent.name, path.parent.name))
        else:
            folder = _original_of(path)
        if folder is None:
            return []
        run = folder.load()
    except (ModelError, RunNotFound, OSError, RuntimeError):  # an ancestor that was deleted, or no path at all
        return []
    if of and run.created_at >= of:
        return []
    return [folder, *ancestors(str(run.settings.get("model", "")), run.created_at)]


def _original_of(copy: Path) -> RunFolder | None:
    """The run whose artifact was copied to a folder, if it is still here."""
    if not (copy / "settings.json").is_file():  # every artifact has one
        return None
    name = next((name for name in WEIGHTS if (copy / name).is_file()), None)
    if name is None:
        return None
    weights = sha256(copy / name)
    finished = (one.folder for one in listed_runs() if one.state == "FINISHED")
    return next((folder for folder in finished if folder.load().artifact.checksums.get(name) == weights), None)


def _without_model(folder: RunFolder) -> str:
    run = folder.load()
    said = f"{folder.reference!r} is a run, and no model"
    if run.state in ("FAILED", "CANCELLED"):
        return f"{said}: it is {run.state}. Resume it, or choose another"
    if run.state == "FINISHED":
        return f"{said}: it trained nothing. Name what it measured, {run.settings.get('model')!r}"
    return f"{said} yet: it is {run.state}. Its model is there once it is FINISHED"


def _finished_runs(model: str) -> str:
    """What to say of runs where no model was found; nothing where there are none, or a run could not be called so."""
    if not is_reference(model) or local_path(model, request_roots()):
        return ""
    made = [one.folder for one in listed_runs() if one.state == "FINISHED"]
    known = [folder.reference for folder in made if folder.artifact.is_dir()]
    if not known:
        return ""
    known.sort(key=lambda one: -SequenceMatcher(None, one.casefold(), model.casefold()).ratio())
    more = f" and {len(known) - RUNS_SHOWN} more" if len(known) > RUNS_SHOWN else ""
    return f"; a finished run: {', '.join(known[:RUNS_SHOWN])}{more}"
