"""The models that there are by name, as a table."""

from collections.abc import Sequence

from rich.table import Table

from attune.figures import MISSING
from attune.models.catalog import ModelDescription
from client.text import Text


def models_table(models: Sequence[ModelDescription]) -> Table:
    """One a row: name and other names, dimension, pixels of a picture's side, parameters, where its weights come from."""
    table = Table(
        title=", ".join(sorted({model.task for model in models})),
        caption="Besides these: a folder, NAME#path/to/checkpoint, NAME#scratch, every finished run by its name, any other "
        "image model of timm's as timm/NAME, and text encoders of the hub as owner/name, unless the service has tokens. The "
        "licence of weights is on their page on the Hugging Face hub.",
    )
    table.add_column("model", overflow="fold", ratio=3)
    for title in ("dim", "pixels", "size"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("weights from", overflow="fold", ratio=2)
    for model in models:
        size = f"{model.parameters / 1e6:,.0f} M" if model.parameters else "?"
        licence = f" ({model.licence})" if model.licence else ""
        names = "\n".join((model.name, *(f"= {alias}" for alias in model.aliases)))
        table.add_row(
            Text(names),
            str(model.dimension or MISSING),
            str(model.image_size or MISSING),
            size,
            Text(f"{model.weights}{licence}"),
        )
    return table
