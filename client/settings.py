"""Checks before anything is sent."""

from typing import Any

from attune.config import check_settings
from attune.errors import SettingsError
from attune.names import check_name


def check_request(run_name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, each in its own type; those left out stay out.

    Raises:
        SettingsError: with everything that is wrong with the run's name and the settings.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    problems = _name_problems("run_name", run_name)
    try:
        checked = check_settings(given)
    except SettingsError as error:
        raise SettingsError("\n".join([str(error), *problems])) from None
    if problems:
        raise SettingsError("\n".join(["The settings cannot be used:", *problems]))
    return checked.model_dump(mode="json", exclude_unset=True)


def check_dataset_name(name: str) -> None:
    """Passes if a dataset can have this name.

    Raises:
        SettingsError: if it cannot.
    """
    problems = _name_problems("name", name)
    if problems:
        raise SettingsError("\n".join(["The dataset cannot be pushed:", *problems]))


def _name_problems(field: str, value: str) -> list[str]:
    try:
        check_name(value)
    except ValueError as error:
        return [f"- {field} = {value!r} {error}"]
    return []
