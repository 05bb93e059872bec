"""The command line: `python -m client --help`."""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from attune.errors import AttuneError
from client.client import DEFAULT_SEARCH_URL, DEFAULT_URL, AttuneClient
from client.display import compared_table, matches_table, metrics_table, run_table, runs_table
from client.run import Run

if TYPE_CHECKING:
    from attune.schemas import DatasetReport

PROBLEMS_SHOWN = 20

app = typer.Typer(
    help="Fine-tune and evaluate models on your own Attune service, and search with them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[str, typer.Option(envvar="ATTUNE_URL", help="The fine-tuning Flow: grpc://host:port or http://host:port.")]
SearchUrl = Annotated[str, typer.Option(envvar="ATTUNE_SEARCH_URL", help="The search Flow.")]
Data = Annotated[Path, typer.Option(help="A CSV (image,caption), a folder with captions.txt, or Parquet.")]
ImageFolder = Annotated[Path | None, typer.Option(help="Where a CSV's relative image paths start, if not beside it.")]
RunName = Annotated[str, typer.Argument(help="Name of the run.")]


@app.command()
def push(
    data: Data,
    name: Annotated[str, typer.Option(help="What `fit --train-data` then takes.")],
    image_folder: ImageFolder = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples sent at a time, at most.")] = 64,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a dataset to the service, which checks every example."""
    report = AttuneClient(url).push(name, data, image_folder, batch_size)
    _show_dataset(report)


@app.command()
def fit(
    model: Annotated[str, typer.Option(help="`starter`, `name#weights` such as ViT-B-32#openai, or a path.")],
    data: Annotated[Path | None, typer.Option(help="Data to push first, as `push --data`, under the run's name.")] = None,
    train_data: Annotated[str | None, typer.Option(help="Or the name of a dataset that is pushed already.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Name of a pushed dataset to measure on.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; a random one by default.")] = None,
    experiment: Annotated[str, typer.Option(help="A label to list runs by.")] = "default",
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs per optimizer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    loss: Annotated[str | None, typer.Option(help="Training loss.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set seed=1. Repeatable.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the run to its end and show before and after.")] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Fine-tune a model."""
    source = _one_source(data, "--train-data", train_data)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "loss": loss}
    given |= _parse_settings(settings or [], AttuneClient.fit)
    client = AttuneClient(url)
    run = client.fit(model, source, eval_data, name, experiment, description, **given)
    if data:
        _show_dataset(client.dataset(run.name))
    _say(f"run {run.name} submitted")
    if wait:
        _follow(run)
        run.display_metrics()
        _say(f"download the model with: python -m client download {run.name}")
        _say(f"and the report with: python -m client report {run.name}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="`starter`, `name#weights`, a path, or the name of a finished run.")],
    data: Annotated[Path | None, typer.Option(help="Data to push first, under the run's name and -eval.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Or the name of a dataset that is pushed already.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Another model to compare with.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; a random one by default.")] = None,
    experiment: Annotated[str, typer.Option(help="A label to list runs by.")] = "default",
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set seed=1. Repeatable.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the run to its end and show the figures.")] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Measure a model as it is, with nothing trained."""
    source = _one_source(data, "--eval-data", eval_data)
    client = AttuneClient(url)
    given = _parse_settings(settings or [], AttuneClient.evaluate)
    run = client.evaluate(model, source, baseline, name, experiment, description, **given)
    if data:
        _show_dataset(client.dataset(f"{run.name}-eval"))
    _say(f"run {run.name} submitted")
    if wait:
        _follow(run)
        run.display_metrics()
        _say(f"download the report with: python -m client report {run.name}")


@app.command()
def runs(
    experiment: Annotated[str | None, typer.Option(help="Only runs of this experiment.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """List the runs, newest first."""
    Console().print(runs_table([run.document for run in AttuneClient(url).list_runs(experiment)]))


@app.command()
def show(name: RunName, url: Url = DEFAULT_URL) -> None:
    """Show a run: its state, its settings, and its figures once it is evaluated."""
    run = AttuneClient(url).get_run(name).document
    console = Console()
    console.print(run_table(run))
    if run.evaluation.after:
        console.print(metrics_table(run))


@app.command()
def logs(
    name: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is at an end.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a run's log."""
    run = AttuneClient(url).get_run(name)
    for line in run.stream_logs() if follow else run.logs().splitlines():
        typer.echo(line)


@app.command()
def download(
    name: RunName,
    to: Annotated[Path | None, typer.Option(help="Folder to write; by default the run's name.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Download the tuned model of a finished run."""
    folder = AttuneClient(url).get_run(name).save_artifact(to or Path(name))
    _say(f"{name} is in {folder}/")


@app.command()
def report(
    name: RunName,
    to: Annotated[Path | None, typer.Option(help="File to write; by default the run's name and -report.html.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Download a run's evaluation report, one HTML page."""
    _say(f"the report of {name} is {AttuneClient(url).get_run(name).report(to)}")


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="Name of an evaluated run.")],
    other: Annotated[str, typer.Argument(help="Name of another, measured on the same data.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Show two evaluated runs side by side, each after its training."""
    client = AttuneClient(url)
    Console().print(compared_table(*(client.get_run(name).evaluated() for name in (one, other))))


@app.command()
def index(data: Data, image_folder: ImageFolder = None, search_url: SearchUrl = DEFAULT_SEARCH_URL) -> None:
    """Encode pictures with the tuned model and store them for search."""
    _say(f"{AttuneClient(search_url=search_url).index(data, image_folder)} documents indexed")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option(min=1, help="Hits to show, at most.")] = 5,
    search_url: SearchUrl = DEFAULT_SEARCH_URL,
) -> None:
    """Search the index with a text."""
    Console().print(matches_table(AttuneClient(search_url=search_url).search(query, limit)))


def _show_dataset(report: "DatasetReport") -> None:
    for problem in report.problems[:PROBLEMS_SHOWN]:
        _warn(f"{problem.source}: {problem.advice}")
    if len(report.problems) > PROBLEMS_SHOWN:
        _warn(f"... and {len(report.problems) - PROBLEMS_SHOWN} more problems")
    _say(f"{report.name}: {report.images} pictures, {report.captions} captions, {report.rejected} rejected")


def _follow(run: Run) -> None:
    """A progress bar on a terminal, the log anywhere else."""
    try:
        if not Console(stderr=True).is_terminal:
            for line in run.stream_logs():
                typer.echo(line, err=True)
        run.wait()
    except KeyboardInterrupt:
        _say(f"The run goes on. Follow it with: python -m client logs --follow {run.name}")
        raise


def _one_source(data: Path | None, option: str, name: str | None) -> Path | str:
    source = data or name
    if source is None or (data and name):
        raise typer.BadParameter(f"give --data, a file or folder to push, or {option}, a pushed dataset's name")
    return source


def _parse_settings(pairs: list[str], call: Callable[..., Run]) -> dict[str, Any]:
    """Settings that have no option; `call` is what they are for."""
    settings = {}
    taken = signature(call).parameters.keys() - {"callbacks"}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not name=value", param_hint="--set")
        if name.strip() in taken:
            raise typer.BadParameter(f"{name.strip()} has an option of its own", param_hint="--set")
        settings[name.strip()] = _parse_value(value.strip())
    return settings


def _parse_value(value: str) -> Any:
    """`3` as a number, `true` as a truth value, anything else as the text it is."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _say(message: str) -> None:
    Console().print(Text(message), soft_wrap=True)


def _warn(message: str, style: str = "yellow") -> None:
    Console(stderr=True).print(Text(message, style), soft_wrap=True)


def main() -> None:
    """Runs the command line; an error is a red line and exit status 1, never a traceback."""
    try:
        app(prog_name="python -m client")
    except (AttuneError, OSError) as error:
        _warn(str(error), "red")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
