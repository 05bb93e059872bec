"""Access tokens of a service: `python -m flows.tokens --help`. A running service sees changes at once."""

import sys
from typing import Annotated

import typer

from attune.errors import AttuneError
from attune.service.tokens import ROLES, add_token, read_tokens, remove_token, tokens_file

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Argument(help="Whom or what the token is for.")]


@app.command()
def add(name: Name, role: Annotated[str, typer.Option(help=f"One of: {', '.join(ROLES)}.")] = "full") -> None:
    """Make a token and show it, this once. A service that had none asks everybody for one from now on."""
    typer.echo(add_token(tokens_file(), name, role))
    typer.echo(f"{name} ({role}) is in {tokens_file()}, as a hash: keep the token, it is not shown again", err=True)


@app.command("list")
def list_() -> None:
    """Show whose tokens there are."""
    for token in read_tokens(tokens_file()):
        typer.echo(f"{token.name}\t{token.role}\t{token.created_at}")


@app.command()
def remove(name: Name) -> None:
    """Make a token worthless, at once."""
    remove_token(tokens_file(), name)


def main() -> None:
    """Runs the command line; an error is one line and exit status 1."""
    try:
        app(prog_name="python -m flows.tokens")
    except (AttuneError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
