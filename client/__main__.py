"""The command line: `python -m client --help`."""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from attune.characters import visible
from attune.errors import AttuneError, SettingsError
from attune.models.catalog import describe_models
from client.client import DEFAULT_SEARCH_URL, DEFAULT_URL, AttuneClient
from client.display import (
    datasets_table,
    experiments_table,
    matches_table,
    metrics_table,
    run_table,
    runs_table,
    storage_table,
)
from client.login import login as keep_token
from client.login import logout as forget_token
from client.models import models_table
from client.run import Run
from client.settings import MOST
from client.text import Text

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
Data = Annotated[
    Path,
    typer.Option(help="CSV, Parquet, .npy or a folder: pictures with captions, pairs, or single items (docs/data.md)."),
]
ImageFolder = Annotated[Path | None, typer.Option(help="Where a CSV's relative image paths start, if not beside it.")]
BatchSize = Annotated[int, typer.Option(min=1, max=MOST, help="Examples sent at a time, at most.")]
RunName = Annotated[str, typer.Argument(help="The run: NAME, or EXPERIMENT/NAME.")]
NewRunName = Annotated[str | None, typer.Option("--name", "--run-name", help="Name of the run; a random one by default.")]
Experiment = Annotated[str, typer.Option("--experiment", "--experiment-name", help="What the run belongs to.")]
OneExperiment = Annotated[
    str | None, typer.Option("--experiment", "--experiment-name", help="Only runs of this experiment.")
]
Wait = Annotated[bool, typer.Option(help="Follow the run to its end and show before and after.")]


@app.command()
def login(
    token: Annotated[str, typer.Option(prompt=True, hide_input=True, help="Asked for if it is not given.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Keep the token of a service, once it has taken it, for all later commands."""
    keep_token(url, token)
    _say(f"the token for {url} is kept")


@app.command()
def logout(url: Url = DEFAULT_URL) -> None:
    """Forget the token of a service."""
    forget_token(url)


@app.command()
def push(
    data: Data,
    name: Annotated[str, typer.Option(help="What `fit --train-data` then takes.")],
    image_folder: ImageFolder = None,
    batch_size: BatchSize = 64,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a dataset to the service, which checks every example."""
    report = AttuneClient(url).push(name, data, image_folder, batch_size)
    _show_dataset(report)


@app.command()
def problems(name: Annotated[str, typer.Argument(help="A pushed dataset.")], url: Url = DEFAULT_URL) -> None:
    """Show every problem that was found in a dataset, one a line."""
    for problem in AttuneClient(url).problems(name):
        typer.echo(visible(f"{problem.source}: {problem.advice}"))


@app.command()
def models(
    task: Annotated[str | None, typer.Option(help="Only those for a task, such as image-to-image.")] = None,
    like: Annotated[str, typer.Option(help="Only those with this in their names: SigLIP.")] = "",
) -> None:
    """List the models that `fit --model` takes by name: size, dimension, where their weights come from."""
    known = [model for model in describe_models(task) if like.lower() in " ".join((model.name, *model.aliases)).lower()]
    if not known:
        raise SettingsError(f"No model has {like!r} in its name. `models` alone lists all")
    Console().print(models_table(known))


@app.command()
def fit(
    model: Annotated[
        str | None,
        typer.Option(help="`starter`, ViT-B-32#openai, timm/NAME, mlp, a text encoder, a path, or a run; see `models`."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data to push first, as `push --data`, under the run's name.")] = None,
    train_data: Annotated[str | None, typer.Option(help="Or the name of a dataset that is pushed already.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Name of a pushed dataset to measure on.")] = None,
    val_data: Annotated[str | None, typer.Option(help="Name of a pushed dataset to choose the weights on.")] = None,
    model_artifact: Annotated[str | None, typer.Option(help="Instead of --model: a finished run to train on from.")] = None,
    name: NewRunName = None,
    experiment: Experiment = "default",
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures, or items in their place, per optimizer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    loss: Annotated[str | None, typer.Option(help="Training loss.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any other setting: --set seed=1. Repeatable.")] = None,
    wait: Wait = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Fine-tune a model."""
    source = _one_source(data, "--train-data", train_data)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "loss": loss}
    given |= {"model_artifact": model_artifact, **_parse_settings(settings or [], AttuneClient.fit)}
    client = AttuneClient(url)
    run = client.fit(model, source, eval_data, name, experiment, description, val_data=val_data, **given)
    if data:
        _show_dataset(client.dataset(run.config["train_data"]))
    _say(f"run {run.reference} submitted")
    if wait:
        _follow(run)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="As for `fit`: `models` lists many; a path, or a finished run.")],
    data: Annotated[Path | None, typer.Option(help="Data to push first, under the run's name and -eval.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Or the name of a dataset that is pushed already.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Another model to compare with.")] = None,
    name: NewRunName = None,
    experiment: Experiment = "default",
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
        _show_dataset(client.dataset(run.config["eval_data"]))
    _say(f"run {run.reference} submitted")
    if wait:
        _follow(run)


@app.command()
def runs(
    experiment: OneExperiment = None,
    states: Annotated[
        list[str] | None, typer.Option("--state", "--states", help="Only runs in this state, such as FAILED. Repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="Only runs with this in their names.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Runs to show, at most.")] = 50,
    url: Url = DEFAULT_URL,
) -> None:
    """List the runs, newest first."""
    found = AttuneClient(url).list_runs(experiment, states or [], name, limit)
    Console().print(runs_table([run.document for run in found]))


@app.command()
def experiments(url: Url = DEFAULT_URL) -> None:
    """List the experiments, and how many of their runs are in which state."""
    Console().print(experiments_table(AttuneClient(url).list_experiments()))


@app.command()
def cancel(name: RunName, url: Url = DEFAULT_URL) -> None:
    """End a run; its checkpoints are kept."""
    run = AttuneClient(url).get_run(name).cancel()
    ending = "is cancelled" if run.document.state == "CANCELLED" else f"is {run.document.state} and will stop"
    _say(f"{name} {ending}. Go on with it with: python -m client resume {name}")


@app.command()
def resume(name: RunName, wait: Wait = True, url: Url = DEFAULT_URL) -> None:
    """Go on with a run that failed or was cancelled, from its last checkpoint."""
    run = AttuneClient(url).get_run(name).resume()
    _say(f"{name} goes on")
    if wait:
        _follow(run)


@app.command()
def retry(name: RunName, wait: Wait = True, url: Url = DEFAULT_URL) -> None:
    """Start a run that failed or was cancelled from the beginning."""
    run = AttuneClient(url).get_run(name).retry()
    _say(f"{name} starts again")
    if wait:
        _follow(run)


@app.command()
def delete(
    name: Annotated[str | None, typer.Argument(help="The run: NAME, or EXPERIMENT/NAME.")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "--experiment-name", help="Or an experiment with all its runs.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Or a dataset.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Remove from the service a run with all its files, all runs of an experiment, or a dataset."""
    client = AttuneClient(url)
    if [name, experiment, dataset].count(None) != 2:
        raise typer.BadParameter("give the name of a run, or --experiment, or --dataset")
    if name is not None:
        client.delete_run(name)
    elif dataset is not None:
        client.delete_dataset(dataset)
    elif experiment is not None:
        _say(f"{len(client.delete_runs(experiment))} runs of {experiment} are deleted")
        return
    _say(f"{name or dataset} is deleted")


@app.command()
def datasets(url: Url = DEFAULT_URL) -> None:
    """List the datasets."""
    Console().print(datasets_table(AttuneClient(url).list_datasets()))


@app.command()
def storage(url: Url = DEFAULT_URL) -> None:
    """Show what the service keeps on disk, and what is free."""
    Console().print(storage_table(AttuneClient(url).storage()))


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
    after: Annotated[int, typer.Option(min=0, help="Leave out so many of the first lines.")] = 0,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a run's log."""
    run = AttuneClient(url).get_run(name)
    for line in run.stream_logs(after) if follow else run.logs(after).splitlines():
        typer.echo(visible(line))


@app.command()
def download(
    name: RunName,
    to: Annotated[
        Path | None,
        typer.Option("--to", "--directory", help="Folder to write, with nothing else in it; by default the run's name."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Download the tuned model of a finished run."""
    run = AttuneClient(url).get_run(name)
    folder = run.save_artifact(to or Path(run.name))
    _say(f"{name} is in {folder}/")


@app.command()
def report(
    name: RunName,
    to: Annotated[Path | None, typer.Option(help="File or folder to write to; by default RUN-report.html.")] = None,
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
    """Show two evaluated runs side by side: the figures of their models."""
    AttuneClient(url).compare(one, other).display()


@app.command()
def index(
    data: Data, image_folder: ImageFolder = None, batch_size: BatchSize = 64, search_url: SearchUrl = DEFAULT_SEARCH_URL
) -> None:
    """Encode pictures, texts or embeddings, of pairs what belongs to them, with the tuned model; store them for search."""
    _say(f"{AttuneClient(search_url=search_url).index(data, image_folder, batch_size)} documents indexed")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Hits to show, at most.")] = 5,
    search_url: SearchUrl = DEFAULT_SEARCH_URL,
) -> None:
    """Search the index with a text."""
    matches = AttuneClient(search_url=search_url).search(query, limit)
    if matches:
        Console().print(matches_table(matches))
    else:
        _say("The index is empty. Fill it with: python -m client index --data DATA")


def _show_dataset(report: "DatasetReport") -> None:
    for problem in report.problems[:PROBLEMS_SHOWN]:
        _warn(f"{problem.source}: {problem.advice}")
    if len(report.problems) > PROBLEMS_SHOWN:
        more = sum(report.reasons.values()) - PROBLEMS_SHOWN
        _warn(f"... and {more} more. All of them: python -m client problems {report.name}")
    kind = report.kind
    _say(f"{report.name}: {report.counted}, {report.rejected} rejected")
    if report.merged:
        _say(f"{report.merged} more examples had the {kind.item} of another, and became one with it")


def _follow(run: Run) -> None:
    """A progress bar on a terminal, the log anywhere else; then the figures, and what to do with the run."""
    try:
        if not Console(stderr=True).is_terminal:
            for line in run.stream_logs():
                typer.echo(visible(line), err=True)
        run.wait()
    except KeyboardInterrupt:
        _say(f"The run goes on. Follow it with: python -m client logs --follow {run.reference}")
        raise
    run.display_metrics()
    if run.config.get("train_data"):
        _say(f"download the model with: python -m client download {run.reference}")
    _say(f"download the report with: python -m client report {run.reference}")


def _one_source(data: Path | None, option: str, name: str | None) -> Path | str:
    if data and name:
        raise typer.BadParameter(f"--data ({data}) and {option} ({name}) are two answers to one question: give one of them")
    if not (data or name):
        raise typer.BadParameter(f"give --data, a file or folder to push, or {option}, a pushed dataset's name")
    return data or str(name)


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
