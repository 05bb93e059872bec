"""Loggers tell what a run's history tells, once, and decide nothing. The servers and files are real."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from attune.callback_settings import OwnCallback
from attune.errors import SettingsError
from attune.runs.folder import RunFolder
from attune.runs.life_cycle import fail, retry
from attune.schemas import DatasetReport, FinetuningRun, RunEvent, TrainingExample
from attune.service.settings import service_settings
from attune.stages import run_stage
from attune.training.loggers.own import find
from attune.training.loggers.points import points_of
from attune.training.loggers.sink import Kept
from attune.validation import validate
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.trained import of_kind, start
from tests.processes import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")

SERVER = Path(sys.prefix) / "mlflow-server"
KILLED_AFTER = 4
"""Epochs."""
LONG = {"epochs": 14, "batch_size": 8, "learning_rate": 1e-5, "early_stopping_patience": 0}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def free() -> int:
    """A port on which nobody listens."""
    return free_port()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests; a slow machine may take its time."""
    for name in (
        "MLFLOW_TRACKING_URI",
        "WANDB_API_KEY",
        "WANDB_BASE_URL",
        "ATTUNE_TRACKING_HOSTS",
        "ATTUNE_CALLBACK_PACKAGES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def allow(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Sets what an operator allows."""
    for name, value in settings.items():
        monkeypatch.setenv(f"ATTUNE_{name.upper()}", value)
    service_settings.cache_clear()


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server of these tests' own."""
    tmp_path, free = tmp_path_factory.mktemp("mlflow"), free_port()
    assert SERVER.is_dir(), "MLflow's server is not installed: make install"
    environment = {
        **os.environ,
        "PYTHONPATH": str(SERVER),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = (
        f"-m mlflow server --backend-store-uri sqlite:///{tmp_path}/mlflow.db --host 127.0.0.1 --port {free} --workers 1"
    )
    with (tmp_path / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command.split()],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{free}"
    try:
        up = wait_until(lambda: process.poll() is not None or answers(f"{address}/health"), 120)
        assert up, (tmp_path / "mlflow.log").read_text()
        assert process.poll() is None, (tmp_path / "mlflow.log").read_text()
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    """Whether a web server answers."""
    with suppress(urllib.error.URLError, OSError):
        urllib.request.urlopen(address, timeout=5).close()
        return True
    return False


def points(folder: RunFolder) -> Counter[tuple[str, int, float]]:
    """Name, step and value of everything that the history has as points of curves."""
    steps = folder.load().training.recipe["steps_per_epoch"]
    found = Counter[tuple[str, int, float]]()
    for event in folder.events():
        step, figures = points_of(event, steps)
        found.update((name, step, round(value, 4)) for name, value in figures.items())
    return found


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    mlflow_server: str,
    make_examples: Callable[..., list[TrainingExample]],
    push: Callable[..., DatasetReport],
) -> Iterator[RunFolder]:
    """A run with all loggers whose training was killed, and went on from its checkpoint in another process."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("killed")
        patch.setenv("ATTUNE_HOME", str(home))
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        own_package(home, patch)
        allow(patch, tracking_hosts=mlflow_server.removeprefix("http://"))
        push("shapes", make_examples(48, captions=1))
        callbacks = [
            {"query_data": "shapes", "limit": 3},
            {"kind": "tensorboard", "log_dir": "curves"},
            {
                "kind": "mlflow",
                "tracking_uri": mlflow_server,
                "experiment": "pictures",
                "run_name": "mine",
                "run_description": "what it is",
                "tags": {"team": "search"},
            },
            {"kind": "wandb", "project": "pictures"},
            {"kind": "own", "name": "ownpackage.things.Mine", "options": {"path": str(home / "told.txt")}},
        ]
        folder = start("killed", tiny_model, **LONG, callbacks=callbacks)
        first = train(folder)
        assert wait_until(lambda: first.poll() is not None or len(of_kind(folder, "validation")) > KILLED_AFTER, 240)
        first.kill()
        first.wait()
        assert train(folder).wait() == 0
    assert of_kind(folder, "logger") == []
    yield folder
    service_settings.cache_clear()


def train(folder: RunFolder) -> subprocess.Popen[bytes]:
    """A process of its own."""
    return subprocess.Popen([sys.executable, "-W", "ignore", "-m", "attune", "train", folder.reference])


def tensorboard_points(path: Path) -> Counter[tuple[str, int, float]]:
    """Read with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = Counter[tuple[str, int, float]]()
    for file in path.glob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            found.update((tag, one.step, round(one.value, 4)) for one in accumulator.Scalars(tag))
    return found


def alike(found: Counter[tuple[str, int, float]], expected: Counter[tuple[str, int, float]]) -> None:
    """The same points, each as often; TensorBoard's are single precision."""
    assert sorted(one[:2] for one in found.elements()) == sorted(one[:2] for one in expected.elements())
    values, right = ({one[:2]: one[2] for one in each} for each in (found, expected))
    assert values == pytest.approx(right, rel=1e-4, abs=2e-4)


def test_tensorboard_has_every_point_of_the_history_once_though_the_training_was_killed(killed: RunFolder) -> None:
    path = killed.loggers / "curves"
    assert len(list(path.iterdir())) == 2  # a file of each process
    found = tensorboard_points(path)
    alike(found, points(killed))
    assert {"train/loss", "train/learning_rate", "train/logit_scale", "validation/val_loss", "result/mean_recall"} <= {
        name for name, _, _ in found
    }
    assert {name for name, step, _ in found if step == 0} >= {"validation/mean_recall", "callback-1/recall"}


def test_tensorboard_has_the_settings_and_the_result_as_text(shapes: DatasetReport, tiny_model: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = start("watched", tiny_model, epochs=1, callbacks=[{"kind": "tensorboard"}])
    run_stage("train", "watched")

    accumulator = EventAccumulator(str(folder.loggers / "tensorboard"))
    accumulator.Reload()
    texts = {tag: accumulator.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in accumulator.Tags()["tensors"]}
    assert "| seed | 0 |" in texts["settings/text_summary"]
    assert "| recipe.steps_per_epoch | " in texts["settings/text_summary"]
    assert texts["result/text_summary"].startswith("chosen: ")


def test_a_run_that_is_tried_again_leaves_the_first_attempt_out(shapes: DatasetReport, tiny_model: Path) -> None:
    folder = start("again", tiny_model, epochs=1, callbacks=[{"kind": "tensorboard"}])
    run_stage("train", "again")
    first = tensorboard_points(folder.loggers / "tensorboard")
    fail(folder, "on purpose")
    retry(folder)
    assert not folder.loggers.exists()
    run_stage("validate", "again")
    run_stage("train", "again")

    second = tensorboard_points(folder.loggers / "tensorboard")
    assert {one[:2] for one in second if one[0] != "train/loss"} >= {one[:2] for one in first if "validation" in one[0]}
    assert max(Counter(one[:2] for one in second.elements()).values()) == 1


def mlflow_points(address: str, experiment: str) -> tuple[Any, Counter[tuple[str, int, float]]]:
    """The one run of an experiment, and all points of its metrics."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    [run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    found = Counter[tuple[str, int, float]]()
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        found.update((name.replace("_at_", "@"), one.step, round(one.value, 4)) for one in history)
    return run, found


def test_an_mlflow_server_has_every_point_once_though_the_training_was_killed(killed: RunFolder, mlflow_server: str) -> None:
    run, found = mlflow_points(mlflow_server, "pictures")
    alike(found, points(killed))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mine"
    assert run.data.params["epochs"] == "14"
    assert run.data.params["recipe.batch_size"] == "8"
    assert run.data.tags["team"] == "search"
    assert run.data.tags["attune.run"] == "killed"
    assert run.data.tags["attune.result"].startswith("chosen: ")
    assert run.data.tags["mlflow.note.content"] == "what it is"


def test_without_an_address_the_services_own_server_is_used_and_else_the_runs_folder(
    shapes: DatasetReport, tiny_model: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = start("kept", tiny_model, epochs=1, callbacks=[{"kind": "mlflow"}])
    run_stage("train", "kept")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    sent = start("sent", tiny_model, epochs=1, callbacks=[{"kind": "mlflow", "tracking_uri": mlflow_server}])
    run_stage("train", "sent")

    for folder, address in ((kept, (kept.loggers / "mlflow").as_uri()), (sent, mlflow_server)):
        run, found = mlflow_points(address, "default")
        alike(found, points(folder))
        assert run.info.run_name == folder.reference
    assert not (sent.loggers / "mlflow").exists()


def test_a_server_that_is_not_there_is_told_of_in_one_line_and_training_is_the_same(
    shapes: DatasetReport, tiny_model: Path, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, tracking_hosts=f"127.0.0.1:{free}")
    logger = {"kind": "mlflow", "tracking_uri": f"http://127.0.0.1:{free}"}
    plain, alone = (
        start(name, tiny_model, epochs=2, learning_rate=1e-4, callbacks=callbacks)
        for name, callbacks in (("plain", []), ("alone", [logger]))
    )
    for folder in (plain, alone):
        run_stage("train", folder.reference)

    [line] = of_kind(alone, "logger")
    assert line.message.startswith("MLflowLogger gave up: ")
    assert line.message.endswith("Training does not depend on it, and all figures are in this history")
    assert_equal(checkpoint(alone), checkpoint(plain))
    assert_equal(weights(alone, "chosen"), weights(plain, "chosen"))


def test_a_password_in_the_services_own_address_is_not_told(
    shapes: DatasetReport, tiny_model: Path, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:secret@127.0.0.1:{free}")
    folder = start("quiet", tiny_model, epochs=1, callbacks=[{"kind": "mlflow"}])
    run_stage("train", "quiet")

    assert len(of_kind(folder, "logger")) == 1
    assert "secret" not in (folder.path / "events.jsonl").read_text()


def records(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format after a head of 7 bytes; a torn one at the end is left out."""
    position, block, whole = 7, 32_768, b""
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        part = data[position + 7 : position + 7 + length]
        if kind == 0 or len(part) < length:
            return
        position += 7 + length
        whole = part if kind in (1, 2) else whole + part  # 1: all of it, 2: its beginning, 3: more, 4: its end
        if kind in (1, 4):
            yield whole


def wandb_lines(folder: RunFolder) -> tuple[list[dict[str, Any]], dict[str, Any], set[str]]:
    """Lines of figures in W&B's files, in order of their number, the settings, and the names of its runs."""
    from wandb.proto import wandb_internal_pb2

    lines, config, runs = [], {}, set()
    for file in sorted(folder.loggers.glob("wandb/offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                lines.append({name: json.loads(value) for name, value in items.items()} | {"_step": record.history.step.num})
            elif kind == "run":
                runs.add(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    return sorted(lines, key=lambda line: line["_step"]), config, runs


def test_wandb_offline_has_every_line_once_though_the_training_was_killed(killed: RunFolder) -> None:
    lines, config, runs = wandb_lines(killed)
    assert len(runs) == 1
    assert config["epochs"] == "14"
    assert len({line["_step"] for line in lines}) == len(lines)
    found = Counter((name, line["step"], round(value, 4)) for line in lines for name, value in line.items() if "/" in name)
    expected = points(killed)
    assert not found - expected  # nothing is doubled
    lost = {step for _, step, _ in expected - found}  # what was not written yet, when it was killed
    told = f"of lines {[(line['_step'], line['step']) for line in lines]} (number, step), steps {sorted(lost)} were lost"
    assert not [step for _, step, _ in found if lost and min(lost) < step < max(lost)], told
    assert {step for _, step, _ in expected if step > max(lost, default=0)}


def test_a_callback_of_ones_own_is_told_of_each_epoch_once(killed: RunFolder) -> None:
    told = killed.path.parents[2] / "told.txt"
    epochs = [line.split() for line in told.read_text().splitlines()]
    expected = [
        (f"{event.values['epoch']:.0f}", f"{event.values['mean_recall']:.6f}") for event in of_kind(killed, "validation")
    ]
    told_epochs = [(number, value) for kind, number, value in epochs if kind == "epoch"]
    assert len(set(told_epochs)) == len(told_epochs)
    assert set(told_epochs) <= set(expected)
    assert len(expected) - len(told_epochs) <= 1  # the one at which it was killed
    assert any(kind == "step" for kind, _, _ in epochs)


def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with callbacks that the service allows."""
    package = tmp_path / "packages" / "ownpackage"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{Path(__file__).parents[2]}")
    allow(monkeypatch, callback_packages="elsewhere,ownpackage")


OWN = """
from pathlib import Path


class Mine:
    def __init__(self, path):
        self.path = Path(path)

    def after_step(self, step, figures):
        self.write("step", step, figures["loss"])

    def after_epoch(self, epoch, figures):
        self.write("epoch", epoch, figures["mean_recall"])

    def write(self, kind, number, value):
        with self.path.open("a") as file:
            file.write(f"{kind} {number} {value:.6f}\\n")


class Broken:
    def after_epoch(self, epoch, figures):
        raise RuntimeError("I am broken")


class Nothing:
    pass


def function(epoch, figures):
    pass
"""


def test_a_callback_of_ones_own_that_fails_ends_itself_alone(
    shapes: DatasetReport, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_package(tmp_path, monkeypatch)
    folder = start("broken", tiny_model, epochs=2, callbacks=[{"kind": "own", "name": "ownpackage.things.Broken"}])

    assert run_stage("train", "broken").training.epochs == 2
    assert [event.message.partition(". ")[0] for event in of_kind(folder, "logger")] == [
        "ownpackage.things.Broken gave up: RuntimeError: I am broken"
    ]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("os.path.Name", {}, "in no package from which this service takes callbacks: elsewhere, ownpackage"),
        ("ownpackages.things.Mine", {}, "Ask its operator to add the package to ATTUNE_CALLBACK_PACKAGES"),
        ("ownpackage.absent.Mine", {}, "'ownpackage.absent' cannot be imported .*ModuleNotFoundError"),
        ("ownpackage.things.Mina", {}, r"has no class 'Mina' \(did you mean 'Mine'\?\)"),
        ("ownpackage.things.function", {}, "has no class 'function'"),
        ("ownpackage.things.Nothing", {}, "has neither after_step nor after_epoch"),
        ("ownpackage.things.Mine", {}, "options of ownpackage.things.Mine do not fit: missing a required argument: 'path'"),
        ("ownpackage.things.Mine", {"path": "x", "more": 1}, "unexpected keyword argument 'more'"),
    ],
)
def test_a_callback_of_ones_own_that_cannot_be_used_is_refused(
    name: str, options: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_package(tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match=said):
        find(OwnCallback(kind="own", name=name, options=options))


@pytest.mark.parametrize(
    ("callback", "hosts", "said"),
    [
        ({"kind": "own", "name": "os.path.Name"}, "", "and there is none. Ask its operator to add"),
        ({"kind": "mlflow", "tracking_uri": "http://127.0.0.1:5000"}, "", "ATTUNE_TRACKING_HOSTS"),
        ({"kind": "mlflow", "tracking_uri": "http://127.0.0.1:5000"}, "127.0.0.1:5001,127.0.0.1", "ATTUNE_TRACKING_HOSTS"),
        ({"kind": "mlflow", "tracking_uri": "http://localhost:5000"}, "localhost:5000", "must be on the public internet"),
        ({"kind": "mlflow", "tracking_uri": "http://169.254.169.254/latest"}, "10.0.0.7", "ATTUNE_TRACKING_HOSTS"),
        ({"kind": "wandb", "mode": "online"}, "", "may not send figures to api.wandb.ai. Use mode='offline'"),
        ({"kind": "wandb", "mode": "online"}, "api.wandb.ai", "the service has no WANDB_API_KEY"),
    ],
)
def test_a_logger_that_may_not_go_where_it_wants_is_refused_before_training(
    callback: dict[str, object],
    hosts: str,
    said: str,
    shapes: DatasetReport,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(monkeypatch, tracking_hosts=hosts)
    settings = {"model": str(tiny_model), "train_data": "shapes", "callbacks": [callback]}
    with pytest.raises(SettingsError, match=said):
        validate(FinetuningRun(settings=settings))


def test_what_is_allowed_when_a_run_is_checked_must_still_be_when_it_trains(
    shapes: DatasetReport, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, tracking_hosts="127.0.0.1:9")
    folder = start("late", tiny_model, callbacks=[{"kind": "mlflow", "tracking_uri": "http://127.0.0.1:9"}])
    allow(monkeypatch, tracking_hosts="127.0.0.1:8")

    with pytest.raises(SettingsError, match="may not send figures"):
        run_stage("train", "late")
    assert folder.load().state == "FAILED"


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named_before_training(kind: str, package: str) -> None:
    script = f"""
import sys
sys.modules[{package!r}] = None  # as good as not installed
from attune.config import check_settings
from attune.training.loggers.check import check_loggers
check_loggers(check_settings({{"model": "starter", "train_data": "x", "callbacks": [{{"kind": {kind!r}}}]}}))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)

    assert done.returncode == 1
    advice = {"mlflow": "mlflow-skinny"}.get(package, package)
    assert f"pip install {advice}, or leave the callback out" in done.stderr


def test_no_logger_is_loaded_where_none_is_asked_for() -> None:
    script = "import sys, attune.training.train; print([n for n in ('tensorboard', 'mlflow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_event_is_taken_once_over_all_processes(tmp_path: Path) -> None:
    first = Kept(tmp_path / "one.json")
    assert [first.take(RunEvent(number=number)) for number in (1, 3, 3, 2)] == [True, True, False, False]
    second = Kept(tmp_path / "one.json")
    assert second.key == first.key
    assert [second.take(RunEvent(number=number)) for number in (3, 4)] == [False, True]


def test_what_is_no_figure_is_no_point() -> None:
    for event in (
        RunEvent(kind="log", message="hello"),
        RunEvent(kind="state", message="state TRAINING"),
        RunEvent(kind="guard", values={"epoch": 1}),
        RunEvent(kind="time", values={"data": 0.5}),
    ):
        assert points_of(event, 5)[1] == {}
    assert points_of(RunEvent(kind="average", values={"epoch": 2, "loss": 1, "mean_recall": 0.5}), 5) == (
        10,
        {"average/mean_recall": 0.5},
    )


def test_a_server_that_never_answers_is_not_waited_for(shapes: DatasetReport, tiny_model: Path) -> None:
    """A server that takes connections and never answers holds up the end of a training for some seconds only."""
    with socket.socket() as silent, pytest.MonkeyPatch.context() as patch:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        allow(patch, tracking_hosts=address)
        logger = {"kind": "mlflow", "tracking_uri": f"http://{address}"}
        folder = start("silent", tiny_model, epochs=1, callbacks=[logger])
        began = time.monotonic()
        run_stage("train", "silent")

        assert time.monotonic() - began < 60
        assert [event.message.partition(" s ")[0] for event in of_kind(folder, "logger")] == ["MLflowLogger was not done 20"]
