"""Callbacks of a user's own: a class in a package that the service's operator allows.

    class Mine:
        def __init__(self, word: str) -> None: ...
        def after_step(self, step: int, figures: dict[str, float]) -> None: ...
        def after_epoch(self, epoch: int, figures: dict[str, float]) -> None: ...

It has one of the two methods or both. Figures are those of the run's history: of a step about once a second, of an epoch all
that validation found; the start is epoch 0. It is called in a thread beside the training, in order and, over all resumes, at
most once for each; it decides nothing, and what it raises ends only itself.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from attune.callback_settings import OwnCallback
from attune.choices import did_you_mean
from attune.errors import SettingsError
from attune.schemas import RunEvent
from attune.service.settings import service_settings
from attune.training.loggers.sink import Ending, Facts, Kept

METHODS = {"progress": ("after_step", "step"), "validation": ("after_epoch", "epoch")}


class Own:
    """Calls a user's callback."""

    def __init__(self, callback: OwnCallback, number: int, facts: Facts) -> None:
        self._kept = Kept(facts.folder.loggers / f"own-{number}.json")
        self._made = find(callback)(**callback.options)

    def send(self, events: Sequence[RunEvent]) -> None:
        """Tells it of what is new."""
        for event in events:
            method, number = METHODS.get(event.kind, ("", ""))
            call = getattr(self._made, method, None) if method else None
            if call is not None and self._kept.take(event):
                call(int(event.values[number]), {name: value for name, value in event.values.items() if name != number})

    def end(self, ending: Ending) -> None:
        """It is not told of the end."""


def find(callback: OwnCallback) -> Callable[..., Any]:
    """The class.

    Raises:
        SettingsError: if it is not allowed or not there, is no such class, or takes other options.
    """
    allowed = service_settings().callback_packages
    if not any(callback.name.startswith(f"{package}.") for package in allowed):
        raise SettingsError(
            f"callbacks: {callback.name!r} is in no package from which this service takes callbacks"
            f"{': ' + ', '.join(allowed) if allowed else ', and there is none'}. Ask its operator to add the package to "
            "ATTUNE_CALLBACK_PACKAGES"
        )
    path, _, name = callback.name.rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise SettingsError(
            f"callbacks: {path!r} cannot be imported on the service's machine: {type(error).__name__}: {error}"
        ) from error
    kind = getattr(module, name, None)
    if not inspect.isclass(kind):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise SettingsError(f"callbacks: {path!r} has no class {name!r}{did_you_mean(name, classes)}")
    if not any(callable(getattr(kind, method, None)) for method, _ in METHODS.values()):
        raise SettingsError(f"callbacks: {callback.name} has neither after_step nor after_epoch. Write one of them")
    try:
        inspect.signature(kind).bind(**callback.options)
    except TypeError as error:
        raise SettingsError(f"callbacks: the options of {callback.name} do not fit: {error}") from error
    return kind
