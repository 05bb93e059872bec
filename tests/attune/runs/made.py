"""Runs in any state, without their work."""

from attune.runs.folder import RunFolder
from attune.runs.life_cycle import cancel, fail
from attune.schemas import FinetuningRun


def create(name: str = "first", state: str = "CREATED", **fields: object) -> RunFolder:
    """A run that came to that state as runs do."""
    folder = RunFolder.create(FinetuningRun(name=name, **fields))
    if state == "FAILED":
        fail(folder, "no data")
    elif state == "CANCELLED":
        cancel(folder)
    else:
        folder.set_state(state)
    return folder
