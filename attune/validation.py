"""Everything about a run that can be known to be wrong before it starts."""

from typing import Any

from attune.config import check_settings
from attune.data import store
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.errors import ModelError
from attune.evaluation.zero_shot import templates
from attune.models.source import find_model
from attune.names import is_name
from attune.runs import RunFolder, runs_folder
from attune.schemas import FinetuningRun
from attune.settings import EVALUATION, FinetuningSettings
from attune.training.callbacks import belonging


def validate(run: FinetuningRun) -> dict[str, Any]:
    """Checks a run's settings, data and models.

    Returns:
        The run's fields to set: the settings with every default written out, and the data's fingerprints.

    Raises:
        SettingsError, ModelError, DataError: what is wrong, and what to do.
    """
    settings: FinetuningSettings = check_settings(run.settings)
    # Those that a run has no use for are refused in it, and so not written out either.
    complete = settings.model_dump(mode="json", include=None if settings.trains else set(EVALUATION))
    if settings.eval_data:
        complete.pop("eval_split", None)
    complete |= {name: find(complete[name]) for name in ("model", "baseline") if complete[name] is not None}
    templates(settings.prompt_templates)
    train, evaluation, retention = map(_fingerprint, (settings.train_data, settings.eval_data, settings.retention_data))
    load_parts(settings, train, evaluation, retention)
    watched: dict[str, str] = {}
    for callback in settings.callbacks:
        names = (callback.query_data, callback.index_data or callback.query_data)
        watched |= {name: _fingerprint(name) for name in names}
        belonging(callback, *(load_pairs(watched[name]) for name in names))
    return {
        "settings": complete,
        "train_fingerprint": train,
        "eval_fingerprint": evaluation,
        "retention_fingerprint": retention,
        "callback_fingerprints": watched,
    }


def find(model: str) -> str:
    """The name under which every stage finds a model: its own, or the folder of a finished run's artifact.

    Raises:
        ModelError: if there is no such model, and no finished run of that name.
    """
    try:
        find_model(model)
    except ModelError:
        artifact = RunFolder(runs_folder() / model).artifact
        if not is_name(model) or not artifact.is_dir():
            raise
        return str(artifact)
    return model


def _fingerprint(dataset: str | None) -> str:
    return store.describe(dataset).fingerprint if dataset else ""
