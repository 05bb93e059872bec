"""What is done besides training while a run trains."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from attune.schemas import TrainingExample


@dataclass(frozen=True)
class EvaluationCallback:
    """Looks at the model at the start and after each epoch: how well queries find what belongs to them in an index.

    The figures are in the run's history: precision, recall, f1, hit, average_precision, reciprocal_rank and dcg of the
    first `limit` answers. A query's right answers are those of its own picture, or all of its label if both datasets have
    labels. It decides nothing, so its data may overlap with the training data; `eval_data` is for before and after.

    Attributes:
        query_data: name of a pushed dataset; or a `Path` or examples, which are pushed first as the run's name and `-query`.
        index_data: the same for what is searched, `-index`; by default `query_data`.
        model: `clip-text` if queries are captions, `clip-vision` if they are pictures; by default captions.
        index_model: the same for what is searched; by default what queries are not.
        batch_size: captions or pictures embedded at once.
        exclude_self: leaves each query out of its own answers, where the index holds it.
        limit: how many of the first answers count; 20 by default.
        distance: `cosine`; CLIP has no other.
        gather_examples: keeps the first answers to some queries, in the run's `report/callback-1.json` and so on.
        caption: begins the lines in the run's history.
    """

    query_data: "str | Path | Iterable[TrainingExample]"
    index_data: "str | Path | Iterable[TrainingExample] | None" = None
    model: Literal["clip-text", "clip-vision"] | None = None
    index_model: Literal["clip-text", "clip-vision"] | None = None
    batch_size: int | None = None
    exclude_self: bool = False
    limit: int | None = None
    distance: str = "cosine"
    gather_examples: bool = False
    caption: str | None = None

    def settings(self, query_name: str, index_name: str | None) -> dict[str, Any]:
        """What the run's settings say of it: see `attune.settings.EvaluationCallback`.

        Args:
            query_name: name of the dataset that `query_data` is, or is pushed as.
            index_name: the same of `index_data`, if there is any.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"query_data": query_name, "index_data": index_name}
        return {name: value for name, value in values.items() if value is not None}
