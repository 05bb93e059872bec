"""The models that there are by name, as a table."""

from collections.abc import Iterable

from rich.table import Table

from attune.models.catalog import ModelDescription
from client.text import Text


def models_table(models: Iterable[ModelDescription]) -> Table:
    """One a row: name, task, dimension, picture size, text length, size, where its weights come from."""
    table = Table(
        caption="Besides these: a folder, NAME#path/to/checkpoint, NAME#scratch, and every finished run by its name."
    )
    for title in ("model", "task"):
        table.add_column(title, overflow="fold")
    for title in ("dimension", "pixels", "tokens", "parameters"):
        table.add_column(title, justify="right")
    for title in ("weights from", "licence"):
        table.add_column(title, overflow="fold")
    for model in models:
        name = "\n".join((model.name, *model.aliases))
        numbers = (model.dimension, model.image_size, model.context_length)
        size = f"{model.parameters / 1e6:,.0f} M" if model.parameters else "?"
        table.add_row(Text(name), model.task, *map(str, numbers), size, Text(model.weights), model.licence)
    return table
