"""What a recipe came to on a set. It takes hours to find out, so it is kept, and a comparison broken off goes on."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attune.metrics import DIRECTIONS


@dataclass
class Arm:
    """One recipe on one set.

    Attributes:
        by: the trainer that ran it.
        settings: what was set; all else is at the trainer's defaults.
        hits: for each seed and direction, whether each query's right answer is among the first, bool (queries,).
        records: for each seed what the run came to: steps, captions seen, seconds.
    """

    by: str
    settings: dict[str, Any]
    hits: list[dict[str, np.ndarray]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, file: Path) -> None:
        """Writes what its last run came to."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.npz")
        np.savez_compressed(draft, record=np.array(json.dumps(self.records[-1])), **self.hits[-1])
        draft.rename(file)

    def take(self, file: Path) -> bool:
        """Adds what an earlier run came to, if the file is there."""
        if not file.exists():
            return False
        with np.load(file) as found:
            self.hits.append({direction: found[direction] for direction in DIRECTIONS})
            self.records.append(json.loads(str(found["record"])))
        return True


def kept_file(folder: Path, *asked: Any) -> Path:
    """Where a run's answers are kept: another file for all that was asked of it otherwise."""
    return folder / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]}.npz"
