"""Everything about a run that can be known to be wrong before it starts."""

from typing import Any

from attune.config import check_settings
from attune.data import store
from attune.data.parts import load_parts
from attune.models.source import find_model
from attune.schemas import FinetuningRun
from attune.settings import FinetuningSettings


def validate(run: FinetuningRun) -> dict[str, Any]:
    """Checks a run's settings, data and model.

    Returns:
        The run's fields to set: the settings with every default written out, and the data's fingerprints.

    Raises:
        SettingsError, ModelError, DataError: what is wrong, and what to do.
    """
    settings: FinetuningSettings = check_settings(run.settings)
    find_model(settings.model)
    train = store.describe(settings.train_data).fingerprint
    evaluation = store.describe(settings.eval_data).fingerprint if settings.eval_data else ""
    retention = store.describe(settings.retention_data).fingerprint if settings.retention_data else ""
    load_parts(settings, train, evaluation, retention)
    complete = settings.model_dump()
    if settings.eval_data:
        del complete["eval_split"]  # not used, and the two together are refused
    fingerprints = {"train_fingerprint": train, "eval_fingerprint": evaluation, "retention_fingerprint": retention}
    return {"settings": complete, **fingerprints}
