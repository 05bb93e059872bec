import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from client import AttuneClient, Run, login
from client.__main__ import app


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "client", *arguments], capture_output=True, text=True, check=False, env=environment
    )


COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_says_what_it_does_and_every_option_what_it_is() -> None:
    assert {"push", "fit", "evaluate", "runs", "datasets", "storage", "download"} <= COMMANDS.keys()
    for name, command in COMMANDS.items():
        assert command.help, name
        assert [option.name for option in command.params if not getattr(option, "help", None)] == [], name


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("push", AttuneClient.push),
        ("fit", AttuneClient.fit),
        ("evaluate", AttuneClient.evaluate),
        ("runs", AttuneClient.list_runs),
        ("delete", AttuneClient.delete_runs),
        ("index", AttuneClient.index),
        ("search", AttuneClient.search),
        ("download", Run.save_artifact),
        ("report", Run.report),
        ("logs", Run.logs),
        ("login", login),
    ],
)
def test_a_command_takes_what_the_call_in_python_takes_under_the_same_names(
    command: str, call: Callable[..., object]
) -> None:
    taken = {name.strip("-").replace("-", "_") for option in COMMANDS[command].params for name in option.opts}
    only_python = {"self", "progress", "settings", "callbacks"}
    assert signature(call).parameters.keys() - only_python <= taken


def test_help_of_a_command_is_printed() -> None:
    result = run_client("push", "--help")
    assert result.returncode == 0
    assert "python -m client push" in result.stdout


def test_messages_are_for_python_and_the_command_line_alike() -> None:
    """What one would type in Python is of no use to somebody in a terminal."""
    call = re.compile(r"\b(client|run|attune)\.[a-z_]+\(")
    files = [path for package in ("attune", "client", "executors") for path in Path(package).rglob("*.py")]
    raised = [
        (path, text.value)
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc is not None
        for text in ast.walk(node.exc)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]
    assert len(raised) > 100
    assert [(path, text) for path, text in raised if call.search(text)] == []


def test_error_is_its_message_and_nothing_else() -> None:
    result = run_client("runs", "--url", "nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("The address 'nowhere' cannot be used")
    assert "Traceback" not in result.stderr


def test_bad_settings_are_all_named() -> None:
    result = run_client("fit", "--model", "starter", "--train-data", "emoji", "--epochs", "0", "--set", "sed=1")
    assert result.returncode == 1
    assert "epochs = 0" in result.stderr
    assert "did you mean 'seed'" in result.stderr


def test_a_setting_that_only_training_uses_is_refused_for_an_evaluation() -> None:
    result = run_client(
        "evaluate", "--model", "starter", "--eval-data", "emoji", "--set", "epochs=3", "--set", "devices=gpu"
    )
    assert result.returncode == 1
    assert "nothing is trained without train_data: leave out epochs" in result.stderr
    assert "devices = 'gpu'" in result.stderr


def test_callbacks_are_checked_with_the_other_settings() -> None:
    callbacks = 'callbacks=[{"query_data": "queries", "limt": 3}]'
    result = run_client("fit", "--model", "starter", "--train-data", "emoji", "--set", callbacks, "--set", "seed=-1")
    assert result.returncode == 1
    assert "callbacks[0].limt = 3: there is no such setting (did you mean 'limit'?)" in result.stderr
    assert "seed = -1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --data"),
        (["--data", "a.csv", "--eval-data", "emoji"], "--data (a.csv) and --eval-data (emoji) are two answers"),
        (["--eval-data", "emoji", "--set", "baseline=x"], "has an option of its own"),
    ],
)
def test_evaluate_refuses_options_that_make_no_sense(arguments: list[str], message: str) -> None:
    result = run_client("evaluate", "--model", "starter", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --data"),
        (["--data", "a.csv", "--train-data", "emoji"], "--data (a.csv) and --train-data (emoji) are two answers"),
        (["--train-data", "emoji", "--set", "seed"], "is not name=value"),
        (["--train-data", "emoji", "--set", "model=x"], "has an option of its own"),
    ],
)
def test_fit_refuses_options_that_make_no_sense(arguments: list[str], message: str) -> None:
    result = run_client("fit", "--model", "starter", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_models_are_listed_by_name_and_no_match_is_said() -> None:
    found = run_client("models", "--like", "CLIP-base-EN")
    assert found.returncode == 0, found.stderr
    assert "ViT-B-32#openai" in found.stdout
    assert "= clip-base-en" in found.stdout
    assert "151 M" in found.stdout

    none = run_client("models", "--like", "no-such-model")
    assert none.returncode == 1
    assert "No model has 'no-such-model' in its name" in none.stderr
