"""Names of runs, experiments and datasets: they become folder names, so they are kept plain."""

import re
import secrets

DEFAULT_EXPERIMENT = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_ADJECTIVES = "able brave calm clear deft eager fair fine fleet fond glad keen kind light mild neat plain prime quick warm"
_NOUNS = "alder aspen birch brook cedar cliff dune elm fern fjord grove heath lake maple moss oak pine reed ridge vale"


def is_name(value: object) -> bool:
    """Whether the name can be a folder's name on every system."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_name(value: str) -> str:
    """The name itself, if it can be a folder's name on every system.

    Raises:
        ValueError: if it is empty, longer than 100, or has characters other than letters, digits, `.`, `_`, `-`.
    """
    if not is_name(value):
        raise ValueError(
            "is not a valid name. Use 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    return value


def reference_of(experiment: str, name: str) -> str:
    """How a run is named everywhere: `experiment/name`, or `name` alone in the experiment `default`."""
    return name if experiment == DEFAULT_EXPERIMENT else f"{experiment}/{name}"


def parse_reference(reference: str) -> tuple[str, str]:
    """Experiment and name of a run.

    Args:
        reference: `experiment/name`, or `name` alone for the experiment `default`.

    Raises:
        ValueError: if one of the two is no name.
    """
    experiment, slash, name = reference.partition("/")
    parts = (experiment, name) if slash else (DEFAULT_EXPERIMENT, reference)
    return check_name(parts[0]), check_name(parts[1])


def is_reference(value: str) -> bool:
    """Whether a run could be named so."""
    return len(parts := value.split("/")) <= 2 and all(map(is_name, parts))


def random_name() -> str:
    """A name such as ``keen-birch-4f1a`` for a run that was given none."""
    words = (secrets.choice(_ADJECTIVES.split()), secrets.choice(_NOUNS.split()), secrets.token_hex(2))
    return "-".join(words)
