import os
import subprocess
import sys

import pytest


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "client", *arguments], capture_output=True, text=True, check=False, env=environment
    )


COMMANDS = ["push", "fit", "evaluate", "runs", "show", "logs", "download", "report", "compare", "index", "search"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert command in run_client("--help").stdout
    result = run_client(command, "--help")
    assert result.returncode == 0
    assert f"python -m client {command}" in result.stdout


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
        (["--data", "a.csv", "--eval-data", "emoji"], "give --data"),
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
        (["--data", "a.csv", "--train-data", "emoji"], "give --data"),
        (["--train-data", "emoji", "--set", "seed"], "is not name=value"),
        (["--train-data", "emoji", "--set", "model=x"], "has an option of its own"),
    ],
)
def test_fit_refuses_options_that_make_no_sense(arguments: list[str], message: str) -> None:
    result = run_client("fit", "--model", "starter", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
