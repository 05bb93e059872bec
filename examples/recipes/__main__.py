"""`python -m examples.recipes [NAME ...]`: runs recipes through a service of their own, prints and keeps what they find."""

import shutil
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated

warnings.simplefilter("ignore")  # of dependencies about each other; nothing a reader can act on

import typer
from rich.console import Console
from rich.markdown import Markdown

from attune.environment import describe_environment
from client import AttuneClient
from examples.recipes import RECIPES
from examples.recipes.table import markdown, write
from flows.background import running

FOLDER = Path(".recipes")
console = Console(highlight=False)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of: {', '.join(RECIPES)}; all by default.")] = None,
) -> None:
    """Runs recipes one after the other; their runs, reports and tuned models are left in `.recipes/`."""
    for name in names or RECIPES:
        if name not in RECIPES:
            raise typer.BadParameter(f"{name!r} is none of: {', '.join(RECIPES)}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    with running(Path("flows/finetune.yml"), FOLDER / "home", FOLDER / "finetune.log") as service:
        attune = AttuneClient(service.grpc)
        for name in names or RECIPES:
            recipe = import_module(f"examples.recipes.{name}")
            console.rule(f"[bold]{name}")
            console.print(recipe.__doc__.strip(), markup=False)
            start = time.monotonic()
            table = recipe.run(attune)
            path = write(name, table, time.monotonic() - start, describe_environment())
            console.print(Markdown(markdown(table)))
            console.print(f"{time.monotonic() - start:.0f} s; kept in {path.name}", markup=False)


if __name__ == "__main__":
    typer.run(main)
