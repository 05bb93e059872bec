"""Runs and experiments of a service."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attune.names import DEFAULT_EXPERIMENT, reference_of
from client.settings import check_count, check_states, check_text
from client.transport import Transport, call_one

if TYPE_CHECKING:
    from attune.schemas import Experiment, FinetuningRun

PAGE = 100
MOST_RUNS = 1_000_000


def find_runs(
    transport: Transport, experiment: str, states: Sequence[str], name: str, limit: int | None
) -> Iterator["FinetuningRun"]:
    """Runs, newest first, asked for page by page; see `AttuneClient.list_runs`."""
    from attune.schemas import RunQuery

    check_text("experiment_name", experiment)
    check_text("name", name)
    wanted = check_states(states)
    if limit is not None:
        check_count("limit", limit, MOST_RUNS)
    after, left = "", limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        query = RunQuery(experiment=experiment, states=wanted, name=name, after_run=after, limit=size)
        page = transport.call("/runs/list", [query])
        yield from page
        if len(page) < size:
            return
        after, left = page[-1].reference, left and left - size


def delete_run(transport: Transport, reference: str) -> "FinetuningRun":
    """Removes a run and returns what it was."""
    from attune.schemas import RunQuery

    run: FinetuningRun = call_one(transport, "/runs/delete", [RunQuery(name=reference)])
    return run


def find_experiments(transport: Transport) -> list["Experiment"]:
    """All experiments, the one with the newest run first."""
    from attune.schemas import RunQuery

    return transport.call("/experiments/list", [RunQuery()])


def full_name(name: str, experiment_name: str | None = None) -> str:
    """How the service names a run whose experiment may be given beside its name.

    Raises:
        SettingsError: if one of the two is no text.
    """
    check_text("name", name)
    check_text("experiment_name", "" if experiment_name is None else experiment_name)
    return reference_of(experiment_name or DEFAULT_EXPERIMENT, name)
