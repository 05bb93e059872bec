"""What a report is made of."""

from dataclasses import dataclass, field
from typing import Any

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.evaluation.comparison import sides
from attune.evaluation.measure import Measurement
from attune.schemas import FinetuningRun, RunEvent


@dataclass(frozen=True)
class Material:
    """Everything a report shows.

    Attributes:
        run: with `training` and `evaluation` filled in. `training` is empty for a model that was only evaluated, and
            `evaluation.before` if it was compared with none.
        facts: content of `report/metrics.json`.
        events: the run's history since it was last begun from the beginning.
        test: the pictures and captions that were measured on.
        cache: pixels of these pictures; None of texts and of embeddings, which nobody could look at.
        before: figures of the starting model, or of the baseline; None if there is none to compare with.
        after: those of the chosen weights, or of the model that was evaluated.
        model: configuration of that model, `attune.models.clip.Clip.config`.
    """

    run: FinetuningRun
    facts: dict[str, Any]
    events: list[RunEvent]
    test: Pairs
    cache: PixelCache | None
    before: Measurement | None
    after: Measurement
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[str, str]:
        """What the two models are called: before and after training, or a baseline and a model."""
        return sides(self.run)
