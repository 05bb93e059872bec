"""What a report says beside its figures: data, settings, and how to make the run again."""

import json
import shlex
from collections.abc import Callable
from typing import Any

from attune.config import changed_settings
from attune.figures import MISSING, figure, p_value
from attune.report.card import begun_with
from attune.report.material import Material
from attune.schemas import FinetuningRun

OPTIONS = {
    "fit": ("model", "train_data", "eval_data", "val_data", "epochs", "batch_size", "learning_rate", "loss"),
    "evaluate": ("model", "eval_data", "baseline"),
}
"""Settings that a command of `python -m client` has an option for; the others go through `--set`."""


def plain(value: Any) -> str:
    """A setting or a fact in words: lists and tables on one line, a dash for nothing."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(name: str) -> str:
    """A name of code as words: `text_to_image` is `text to image`."""
    return name.replace("_", " ")


FORMATS: dict[str, Callable[..., str]] = {"figure": figure, "p_value": p_value, "plain": plain, "words": words}
"""Filters of the page."""


def data_facts(material: Material) -> list[tuple[str, str]]:
    """What was measured on, by name and value; fingerprints in full."""
    run = material.run
    facts = {
        "begun with": begun_with(run),
        "measured on": measured_on(run),
        material.test.kind.items: f"{len(material.test):,}",
        material.test.kind.captions or "labels": f"{len(material.test.texts) or len(set(material.test.labels)):,}",
        "groups": f"{len(set(material.test.groups)):,}",
    }
    return [(name, value) for name, value in {**facts, **fingerprints(material)}.items() if value]


def fingerprints(material: Material) -> dict[str, str]:
    """SHA-256 of what the figures depend on, by name; empty where there is no such thing."""
    run, result = material.run, material.run.evaluation
    return {
        f"held-out {result.kind.items} and {result.kind.captions or 'labels'}": result.split_fingerprint,
        "training data": run.train_fingerprint,
        "evaluation data": run.eval_fingerprint,
        "validation data": run.val_fingerprint,
        "retention data": run.retention_fingerprint,
        "preprocessing": result.fingerprints.get("preprocessing", ""),
        f"weights, {material.sides[0]}": result.fingerprints.get("before", ""),
        f"weights, {material.sides[1]}": result.fingerprints.get("after", ""),
    }


def measured_on(run: FinetuningRun) -> str:
    """The data that figures come from, in words."""
    return str(run.settings.get("eval_data") or f"a held-out part of {run.settings.get('train_data')}")


def setting_rows(run: FinetuningRun) -> list[tuple[str, Any, Any, bool]]:
    """Each setting: its name, what was asked for, what it came to, and whether that differs from the default.

    Those that differ come first. What the recipe decided beyond the settings has nothing asked for.
    """
    recipe = run.training.recipe
    changed = changed_settings(run.settings)
    rows = [(name, value, recipe.get(name, value), name in changed) for name, value in run.settings.items()]
    rows.sort(key=lambda row: not row[3])
    return rows + [(name, None, value, False) for name, value in recipe.items() if name not in run.settings]


def reproduce(run: FinetuningRun) -> str:
    """The command that starts the same run again, on data of the same names."""
    given = changed_settings(run.settings)
    given.pop("model_artifact", None)  # it is the model
    command = "fit" if run.training.device else "evaluate"
    words = ["python", "-m", "client", command]
    for name in OPTIONS[command]:
        if name in given:
            words += [f"--{name.replace('_', '-')}", str(given.pop(name))]
    for name, value in given.items():
        words += ["--set", f"{name}={_as_typed(value)}"]
    return shlex.join(words)


def _as_typed(value: Any) -> str:
    """A value as the command line reads it back: JSON, except for a text that JSON would not take for something else."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except json.JSONDecodeError:
        return value
    return json.dumps(value)
