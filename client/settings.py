"""Checks before anything is sent."""

from collections.abc import Sequence
from typing import Any

from attune.config import check_settings
from attune.errors import SettingsError
from attune.names import check_name

MOST = 10_000
"""Documents in a request, and runs in a page: more the service refuses."""


def check_text(field: str, value: object) -> None:
    """Passes if a value is a text.

    Raises:
        SettingsError: if it is not.
    """
    if not isinstance(value, str):
        raise SettingsError(f"{field} = {repr(value)[:200]}: give a text")


def check_count(field: str, value: object, most: int = MOST) -> None:
    """Passes if a value is a whole number from 1 on.

    Raises:
        SettingsError: if it is not, or more than `most`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SettingsError(f"{field} = {repr(value)[:200]}: give a whole number from 1 to {most}")


def check_states(states: Sequence[str]) -> list[str]:
    """The states, in capitals as the service writes them.

    Raises:
        SettingsError: if one of them is no state of a run.
    """
    from attune.schemas import STATES

    if isinstance(states, str) or not isinstance(states, Sequence):
        raise SettingsError(f"states = {repr(states)[:200]}: give a list, such as ['FAILED']")
    found = [str(state).upper() for state in states]
    if wrong := [state for state in found if state not in STATES]:
        raise SettingsError(f"states: {wrong[0][:200]!r} is none. Runs are {', '.join(STATES)}")
    return found


def check_request(run_name: str, experiment_name: str, description: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, each in its own type; those left out stay out.

    Raises:
        SettingsError: with everything that is wrong with the names and the settings.
    """
    check_text("description", description)
    given = {name: value for name, value in settings.items() if value is not None}
    problems = [*_name_problems("run_name", run_name), *_name_problems("experiment_name", experiment_name)]
    try:
        checked = check_settings(given)
    except SettingsError as error:
        raise SettingsError("\n".join([str(error), *problems])) from None
    if problems:
        raise SettingsError("\n".join(["The settings cannot be used:", *problems]))
    return checked.model_dump(mode="json", exclude_unset=True)


def check_own_name(field: str, name: object) -> None:
    """Passes if a dataset, or an experiment, can have this name.

    Raises:
        SettingsError: if it cannot.
    """
    if problems := _name_problems(field, name):
        raise SettingsError(problems[0].removeprefix("- "))


def _name_problems(field: str, value: Any) -> list[str]:
    try:
        check_name(value)
    except ValueError as error:
        return [f"- {field} = {repr(value)[:200]} {error}"]
    return []
