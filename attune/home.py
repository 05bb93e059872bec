"""Where everything that must last is kept: datasets, runs, indexes."""

import os
from pathlib import Path


def home() -> Path:
    """The folder named by the environment variable `ATTUNE_HOME`, else `.attune` in the user's home folder."""
    return Path(os.environ.get("ATTUNE_HOME") or Path.home() / ".attune").resolve()
