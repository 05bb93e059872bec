import os
import subprocess
import sys

import pytest


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "client", *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("command", ["push", "fit", "runs", "show", "logs", "download", "index", "search"])
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
