"""How the service is started, watched and stopped, by `flows.serve` and by Jina's own command; Flows run for real."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import yaml

from attune.errors import RunNotFound, ServiceUnavailable
from attune.schemas import TrainingExample
from client import AttuneClient
from flows import background
from flows.background import Service, free_ports, running, small_flow
from flows.serve import LOST, flow_config, supervise
from tests.processes import descendants, is_alive, is_loopback, listening, wait_until

# Notes every look-up of a name, and every connection to another machine, in every process that is started with it.
SPY = """
import ipaddress, os, sys

def note(event, args):
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
            write(f"connect {address[0]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        if str(args[0]) not in ("localhost", "None", "") and not str(args[0])[0].isdigit():
            write(f"{event} {args[0]}")

def write(line):
    with open(os.environ["SPY_LOG"], "a") as file:
        file.write(f"{os.getpid()} {line}\\n")

sys.addaudithook(note)
write("started")
"""


@contextmanager
def jina_flow(folder: Path, flow: Path | None = None, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`jina flow --uses` of a small Flow or another one, up, on free ports: the process, and the gRPC port."""
    port = free_ports(2)
    path = folder / "flow.yml"
    path.write_text(yaml.safe_dump(flow_config(flow or small_flow(folder), port, free_ports(7)), sort_keys=False))
    jina = Path(sys.executable).with_name("jina")
    variables = {**os.environ, "ATTUNE_HOME": str(folder / "home"), "PYTHONWARNINGS": "ignore", **environment}
    variables.pop("JINA_OPTOUT_TELEMETRY", None)
    with (folder / "jina.log").open("ab") as log:
        command = [jina, "flow", "--uses", path]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True)
    try:
        both = {port, port + 1}
        assert wait_until(lambda: both <= listening(descendants(process.pid)).keys(), 300), (folder / "jina.log").read_text()
        yield process, port
    finally:
        for pid in descendants(process.pid):
            with_pid(pid, signal.SIGKILL)
        process.wait()


def with_pid(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(map(is_alive, pids)), 60)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("small")
    with running(small_flow(folder), folder / "home", folder / "service.log") as service:
        yield service


def test_every_server_listens_on_this_machine_alone(service: Service) -> None:
    found = listening(descendants(service.process.pid))
    monitoring = range(service.monitoring_port, service.monitoring_port + 6)
    assert {service.port, service.port + 1, *monitoring} <= found.keys()
    assert len(found) >= 2 + 6 + 5  # the gateway's, the metrics', and the executors' own
    assert {port: address for port, address in found.items() if not is_loopback(address)} == {}


def test_a_refused_request_is_a_line_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    with running(small_flow(tmp_path), tmp_path / "home", path, COLUMNS="200") as service:
        assert wait_until(lambda: "ready to serve" in path.read_text(), 60)
        with pytest.raises(RunNotFound):
            AttuneClient(service.grpc).get_run("nosuch")
        log = path.read_text()
    told = log[log.index("ready to serve") :]
    assert "RunNotFound(" in told
    assert "Traceback" not in told
    assert "quiet-error" not in told
    assert "Getting endpoints failed" not in log  # which Jina says many times a second while it starts


def test_plain_jina_flow_keeps_to_this_machine_and_stops_whole(tmp_path: Path) -> None:
    """Nothing is looked up, nobody else connected to, nothing listens for others, and SIGTERM leaves nothing behind."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    spied = tmp_path / "spied.txt"
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    with jina_flow(tmp_path, PYTHONPATH=paths, SPY_LOG=str(spied)) as (process, port):
        pids = descendants(process.pid)
        assert AttuneClient(f"grpc://127.0.0.1:{port}").list_runs() == []
        found = listening(pids)
        assert len(found) >= 2 + 3 + 2
        assert all(map(is_loopback, found.values())), found
        process.terminate()
        assert gone(pids), "SIGTERM left processes behind"
    assert [line for line in spied.read_text().splitlines() if not line.endswith("started")] == []
    assert "started" in spied.read_text()


def test_plain_jina_flow_leaves_nothing_behind_when_it_is_killed(tmp_path: Path) -> None:
    with jina_flow(tmp_path) as (process, _):
        pids = descendants(process.pid)
        assert len(pids) >= 4
        process.kill()
        assert gone(pids)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_does_not_outlive_plain_jina_flow(
    tmp_path: Path, tiny_model: Path, make_examples: Callable[..., list[TrainingExample]], how: signal.Signals
) -> None:
    with jina_flow(tmp_path, Path("flows/finetune.yml")) as (process, port):
        attune = AttuneClient(f"grpc://127.0.0.1:{port}")
        attune.push("shapes", make_examples(60), progress=False)
        run = attune.fit(str(tiny_model), "shapes", epochs=5000, learning_rate=1e-6, early_stopping_patience=0)
        assert wait_until(lambda: run.refresh().progress.get("step", 0) > 0, 300)
        pids = descendants(process.pid)
        os.killpg(process.pid, how)  # as Ctrl+C in a terminal does
        assert gone(pids), "a process was left behind"
    folder = tmp_path / "home" / "runs" / "default" / run.name
    assert json.loads((folder / "run.json").read_text())["state"] == "TRAINING"
    assert list((folder / "checkpoints").glob("*.pt"))  # it goes on from there


def test_the_service_ends_after_its_training_has_written_a_checkpoint(
    tmp_path: Path, tiny_model: Path, make_examples: Callable[..., list[TrainingExample]]
) -> None:
    """In a container all that is left when it ends is killed."""
    with running(Path("flows/finetune.yml"), tmp_path / "home", tmp_path / "service.log") as service:
        attune = AttuneClient(service.grpc)
        attune.push("shapes", make_examples(60), progress=False)
        settings = {"epochs": 5000, "learning_rate": 1e-6, "early_stopping_patience": 0, "processes": 2}
        run = attune.fit(str(tiny_model), "shapes", run_name="mine", **settings)
        assert wait_until(lambda: run.refresh().progress.get("step", 0) > 0, 200)
        pids = descendants(service.process.pid)
        training = [pid for pid in pids if psutil.Process(pid).cmdline()[-1] == "mine"]
        assert len(training) == 4  # the stage's, the launcher, and two that train
        assert {port: where for port, where in listening(pids).items() if not is_loopback(where)} == {}
        service.process.terminate()
        assert service.process.wait(120) == 0
        assert not any(map(is_alive, training))
        checkpoints = tmp_path / "home" / "runs" / "default" / "mine" / "checkpoints"
        assert (checkpoints / "within.pt").exists()
        log = (tmp_path / "service.log").read_text()
        assert "Traceback" not in log, log


@pytest.mark.parametrize("victim", ["data_validator", "gateway"])
def test_a_service_that_lost_a_part_is_started_again(small: Service, victim: str) -> None:
    before = descendants(small.process.pid)
    clients = [AttuneClient(small.http), AttuneClient(small.grpc)]
    assert [client.list_runs() for client in clients] == [[], []]
    port = {"gateway": small.port, "data_validator": small.monitoring_port + 2}[victim]
    [lost] = [pid for pid in before if port in listening([pid])]
    os.kill(lost, signal.SIGKILL)
    assert gone(before[1:])
    with pytest.raises(ServiceUnavailable):
        clients[1].list_runs()
    time.sleep(1)  # with the clients' connections lost for a while
    both = {small.port, small.port + 1}
    assert wait_until(lambda: both <= listening(descendants(small.process.pid)).keys(), 300)
    assert [client.list_runs() for client in clients] == [[], []]  # which find it again
    assert not set(descendants(small.process.pid)[1:]) & set(before)


def test_a_part_that_is_killed_while_the_service_starts_does_not_stop_it_from_coming_up(tmp_path: Path) -> None:
    flow = small_flow(tmp_path)

    def parts() -> list[int]:
        found = psutil.process_iter(["cmdline"])
        return [process.pid for process in found if {str(flow), "--once"} <= set(process.info["cmdline"] or ())]

    thread, services = in_thread(lambda: background.start(flow, tmp_path / "home", tmp_path / "service.log"))
    assert wait_until(lambda: bool(listening(parts())), 60)
    os.kill(next(pid for pid in parts() if listening([pid])), signal.SIGKILL)
    thread.join(300)

    try:
        assert AttuneClient(services[0].grpc).list_runs() == []
        assert "ended by SIGKILL; the rest is stopped" in (tmp_path / "service.log").read_text()
    finally:
        background.stop(services[0].process)


def test_sigterm_ends_every_process_and_sigkill_as_well(tmp_path: Path) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        with running(small_flow(tmp_path), tmp_path / "home", tmp_path / "service.log") as service:
            pids = descendants(service.process.pid)
            assert len(pids) >= 5
            os.kill(service.process.pid, number)
            assert service.process.wait(60) == code
            assert gone(pids)
            with pytest.raises(ServiceUnavailable):
                AttuneClient(service.grpc).list_runs()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_service_that_stops_answers_or_says_that_it_does_not(tmp_path: Path, protocol: str) -> None:
    errors: list[Exception] = []
    asked = threading.Event()

    def keep_asking(client: AttuneClient, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            try:
                client.list_runs()
                asked.set()
            except Exception as error:
                errors.append(error)

    with running(small_flow(tmp_path), tmp_path / "home", tmp_path / "log") as service:
        address = service.grpc if protocol == "grpc" else service.http
        askers = [threading.Thread(target=keep_asking, args=(AttuneClient(address), service.process)) for _ in range(4)]
        for asker in askers:
            asker.start()
        assert asked.wait(60)
    for asker in askers:
        asker.join()

    assert errors
    assert [error for error in errors if type(error) is not ServiceUnavailable] == []


def test_a_service_in_the_background_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from flows.background import small_flow, start
folder = Path({str(tmp_path)!r})
print(start(small_flow(folder), folder / "home", folder / "service.log").process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = descendants(int(owner.stdout.readline()))
        assert len(pids) >= 5
        owner.kill()
    assert gone(pids)


def started(flow: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m flows.serve` of a Flow that ends by itself."""
    command = [sys.executable, "-W", "ignore", "-m", "flows.serve", flow, *options]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=90)


def test_bad_settings_end_the_start_with_one_clear_line(tmp_path: Path) -> None:
    done = started("flows/finetune.yml", ATTUNE_HOME=str(tmp_path), ATTUNE_REQUESTS_PER_SECOND="often")
    assert done.returncode == 1
    assert "ATTUNE_REQUESTS_PER_SECOND = 'often'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flow", "environment", "said"),
    [
        ("flows/nosuch.yml", {}, "flows/nosuch.yml is no file. Give a Flow YAML such as flows/finetune.yml"),
        (
            "flows/finetune.yml",
            {"HOST": "x" * 70, "INSECURE": "1"},
            "xxx' is no address",
        ),
        ("flows/finetune.yml", {"TLS_CERTIFICATE": "Makefile", "TLS_KEY": "Makefile"}, "and ATTUNE_TLS_KEY cannot be used"),
        (
            "flows/nosuch.yml",
            {"DISK_QOUTA": "5GB"},
            "ATTUNE_DISK_QOUTA is no setting of the",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, flow: str, environment: dict[str, str], said: str
) -> None:
    start = time.monotonic()
    done = started(flow, ATTUNE_HOME=str(tmp_path), **{f"ATTUNE_{name}": value for name, value in environment.items()})
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 60


def test_a_part_that_cannot_start_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    ports = ["--port", str(free_ports(2)), "--monitoring-port", str(free_ports(3))]
    environment = {"ATTUNE_HOME": str(tmp_path), "ATTUNE_ARTIFACT": "nosuch", "COLUMNS": "200"}
    done = started("flows/search.yml", *ports, **environment)
    assert done.returncode == 1
    assert "There is no model named 'nosuch'" in " ".join(done.stdout.split())


def test_listening_beyond_this_machine_needs_tokens(tmp_path: Path) -> None:
    done = started("flows/finetune.yml", ATTUNE_HOME=str(tmp_path), ATTUNE_HOST="0.0.0.0")
    assert done.returncode == 1
    assert "python -m flows.tokens add NAME" in done.stderr
    assert "Traceback" not in done.stderr


class Counted:
    """A command that appends a line to a file each time it runs, then does what it is told."""

    def __init__(self, folder: Path, then: str) -> None:
        self.file = folder / "starts"
        self.command = [sys.executable, "-c", f"import os, time; open({str(self.file)!r}, 'a').write('x\\n'); {then}"]

    def starts(self) -> int:
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0


T = TypeVar("T")


def in_thread(call: Callable[[], T]) -> tuple[threading.Thread, list[T]]:
    returned: list[T] = []
    thread = threading.Thread(target=lambda: returned.append(call()))
    thread.start()
    return thread, returned


def test_what_never_came_up_is_not_tried_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path, "os._exit(3)")
    assert supervise(counted.command, threading.Event()) == 3
    assert counted.starts() == 1


@pytest.mark.parametrize("then", [f"os._exit({LOST})", "os.kill(os.getpid(), 9)"])
def test_what_is_lost_again_and_again_is_started_less_and_less_often(tmp_path: Path, then: str) -> None:
    counted, stop = Counted(tmp_path, then), threading.Event()
    thread, codes = in_thread(lambda: supervise(counted.command, stop))
    assert wait_until(lambda: counted.starts() >= 3, 60)  # after 1 s, and after 2 more
    stop.set()
    thread.join(30)
    assert codes == [0]
    assert counted.starts() == 3


def test_a_stop_reaches_the_service_in_order(tmp_path: Path) -> None:
    script = f"signal.signal(15, lambda *_: (open({str(tmp_path / 'ended')!r}, 'w').close(), os._exit(0))); time.sleep(60)"
    counted, stop = Counted(tmp_path, f"import signal; {script}"), threading.Event()
    thread, codes = in_thread(lambda: supervise(counted.command, stop))
    assert wait_until(lambda: counted.starts() == 1, 30)
    time.sleep(0.5)
    stop.set()
    thread.join(30)
    assert codes == [0]
    assert (tmp_path / "ended").exists()


def test_tokens_are_made_shown_once_and_removed_on_the_command_line(tmp_path: Path) -> None:
    environment = {**os.environ, "ATTUNE_HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-m", "flows.tokens", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    token = run("add", "alice", "--role", "read").stdout.strip()
    assert token.startswith("attune_")
    assert len(token) > 40
    assert run("list").stdout.startswith("alice\tread\t")
    assert token not in run("list").stdout
    assert token not in (tmp_path / "tokens.json").read_text()
    again = run("add", "alice")
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is a token of the name 'alice'" in again.stderr
    assert run("remove", "alice").returncode == 0
    assert json.loads((tmp_path / "tokens.json").read_text()) == []
