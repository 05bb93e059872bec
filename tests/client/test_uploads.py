"""Pushes to a real service: broken off by SIGKILL and made again, made twice, over both protocols, by the command line."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from attune.data.shards import write_part
from attune.errors import DataError, DatasetNotFound, SettingsError
from attune.schemas import DatasetReport, TrainingExample
from client import AttuneClient
from client.transport import Transport
from client.uploads import push_examples
from flows.background import Service
from tests.conftest import picture
from tests.processes import wait_until

Make = Callable[..., list[TrainingExample]]


class Listening:
    """A transport that notes what goes over another one."""

    def __init__(self, transport: Transport) -> None:
        self.address = transport.address
        self._transport = transport
        self.calls: list[tuple[str, int]] = []

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        self.calls.append((endpoint, len(documents)))
        return self._transport.call(endpoint, documents, parameters)

    def sent(self) -> list[int]:
        """Examples in each batch that was sent."""
        return [count for endpoint, count in self.calls if endpoint == "/push"]


def pushed(transport: Transport, name: str, data: Any, batch_size: int = 8) -> DatasetReport:
    return push_examples(transport, name, data, None, batch_size, lambda *_: None)


def client_process(service: Service, *arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "client", *map(str, arguments), "--url", service.http]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"})


def accepted(service: Service) -> int:
    """Examples that the service has taken in since it was started, by its own count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{service.monitoring_port + 2}") as page:
        lines = page.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("attune_examples_accepted_total"))))


def contents(home: Path) -> set[str]:
    return {path.name for path in (home / "datasets" / "content").glob("[!.]*")}


@pytest.fixture
def parquet(tmp_path: Path, make_examples: Make) -> Path:
    """96 examples in a file."""
    write_part(tmp_path / "shapes.parquet", make_examples(96))
    return tmp_path / "shapes.parquet"


@pytest.fixture
def name() -> str:
    """A dataset's name of this test's own: all tests share a service."""
    return f"data-{uuid4().hex[:8]}"


def test_a_push_whose_client_is_killed_again_and_again_sends_only_what_is_missing(
    name: str, service: Service, home: Path, parquet: Path, make_examples: Make
) -> None:
    examples = make_examples(96)
    for number, example in enumerate(examples):  # no dataset has these batches already
        example.captions = [f"{example.captions[0]}, number {number}"]
    write_part(parquet, examples)
    before, kills = accepted(service), 0
    pause = random.Random(5)
    while kills < 3:
        process = client_process(service, "push", "--name", name, "--data", parquet, "--batch-size", "2")
        seen = accepted(service)
        assert wait_until(lambda: accepted(service) > seen or process.poll() is not None)  # noqa: B023
        time.sleep(pause.uniform(0, 0.2))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills
    process = client_process(service, "push", "--name", name, "--data", parquet, "--batch-size", "2")
    output, _ = process.communicate()

    assert process.returncode == 0
    assert f"{name}: 96 pictures with 96 captions, 0 rejected" in output.decode()
    # A batch counts once; one that was on its way when its client was killed may have come twice.
    assert 96 <= accepted(service) - before <= 96 + 2 * kills
    report = AttuneClient(service.grpc).dataset(name)
    assert (report.images, report.captions) == (96, 96)
    assert not (home / "datasets" / "uploads" / name).exists()


def test_what_is_pushed_again_is_not_sent_and_stored_once(
    name: str, attune: AttuneClient, service: Service, home: Path, make_examples: Make
) -> None:

    first = attune.push(name, make_examples(30), batch_size=8, progress=False)
    there = contents(home)
    before = accepted(service)
    transport = Listening(attune._transport)

    for again in (name, f"{name}-too"):
        assert pushed(transport, again, make_examples(30)).fingerprint == first.fingerprint

    assert transport.sent() == []
    assert accepted(service) == before
    assert contents(home) == there


def test_only_what_is_new_is_sent(name: str, attune: AttuneClient, make_examples: Make) -> None:

    examples = make_examples(48)
    for example in examples:
        example.captions = [f"{name} {example.captions[0]}"]
    transport = Listening(attune._transport)
    pushed(transport, name, examples[:24])
    assert transport.sent() == [8, 8, 8]
    transport.calls.clear()

    report = pushed(transport, name, examples)

    assert transport.sent() == [8, 8, 8]
    assert report.images == 48


def test_data_that_comes_once_is_pushed_too(name: str, attune: AttuneClient, make_examples: Make) -> None:
    def stream() -> Iterator[TrainingExample]:
        yield from make_examples(20)

    assert attune.push(name, stream(), progress=False).images == 20


def test_two_pushes_of_overlapping_data_under_one_name_leave_one_of_them_whole(
    name: str, service: Service, make_examples: Make
) -> None:

    parts = (make_examples(40), make_examples(56)[16:])
    found: list[DatasetReport] = []

    def push(part: list[TrainingExample]) -> None:
        found.append(AttuneClient(service.http).push(name, part, batch_size=8, progress=False))

    threads = [threading.Thread(target=push, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [report.images for report in found] == [40, 40]
    assert AttuneClient(service.http).dataset(name).fingerprint in {report.fingerprint for report in found}


def test_equal_pictures_are_told_of(name: str, service: Service, make_examples: Make, parquet: Path) -> None:
    examples = make_examples(12)
    for example in examples[6:]:
        example.image = examples[0].image
    write_part(parquet, examples)

    output, _ = client_process(service, "push", "--name", name, "--data", parquet).communicate()

    assert f"{name}: 6 pictures with 24 captions, 0 rejected" in output.decode()
    assert "6 more examples had the picture of another, and became one with it" in output.decode()
    report = AttuneClient(service.http).dataset(name)
    assert (report.images, report.merged, report.rejected) == (6, 6, 0)


def test_datasets_are_listed_and_deleted(name: str, attune: AttuneClient, make_examples: Make) -> None:

    report = attune.push(name, make_examples(5), progress=False)

    assert [one.fingerprint for one in attune.list_datasets() if one.name == name] == [report.fingerprint]
    names = [one.name for one in attune.list_datasets()]
    assert names == sorted(names)
    attune.delete_dataset(name)

    assert name not in [one.name for one in attune.list_datasets()]
    with pytest.raises(DatasetNotFound, match=name):
        attune.delete_dataset(name)


def test_every_problem_is_there_page_by_page(name: str, attune: AttuneClient, make_examples: Make) -> None:

    bad = [TrainingExample(captions=["no picture"], source=f"row {number}") for number in range(1500)]

    report = attune.push(name, [*make_examples(2), *bad], batch_size=500, progress=False)

    assert (report.images, report.rejected, len(report.problems)) == (2, 1500, 1000)
    assert [problem.source for problem in attune.problems(name)] == [example.source for example in bad]


@pytest.mark.parametrize("key", ["../../secret", "x" * 64, ""])
def test_a_key_that_is_none_is_refused(attune: AttuneClient, key: str) -> None:
    for endpoint in ("/datasets/uploaded", "/datasets/commit"):
        with pytest.raises(DataError, match="is no key of a batch"):
            attune._transport.call(endpoint, [DatasetReport(name="x", upload="x", batches=[key])])


@pytest.mark.parametrize("upload", ["../escape", "", "a/b"])
def test_an_upload_cannot_be_outside_of_the_uploads(attune: AttuneClient, make_examples: Make, upload: str) -> None:
    with pytest.raises(DataError, match="is not a valid name"):
        attune._transport.call("/push", make_examples(1), {"name": "x", "upload": upload})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda client: client.push(5, []), SettingsError, "name = 5 is not a valid name"),
        (lambda client: client.push("x", 5), DataError, "The data is 5: give a path"),
        (lambda client: client.push("x", b"bytes"), DataError, "The data is b'bytes': give a path"),
        (lambda client: client.push("x", ["cat.png"]), DataError, "Example 1 is 'cat.png': give a TrainingExample"),
        (lambda client: client.push("x", "data.csv", image_folder=5), DataError, "The image folder is 5"),
        (lambda client: client.push("x", [], batch_size=0), SettingsError, "batch_size = 0: give a whole number from 1"),
        (lambda client: client.push("x", [], batch_size=10**6), SettingsError, "batch_size = 1000000: give a whole number"),
        (lambda client: client.index([5]), DataError, "Example 1 is 5: give a TrainingExample or SearchDocument"),
        (lambda client: client.search(5), DataError, "The query is 5: give a text"),
        (lambda client: client.fit("starter", 3), SettingsError, "train_data = 3"),
        (lambda client: client.fit("starter", "x", eval_data={"a": 1}), SettingsError, "eval_data = {'a': 1}"),
        (lambda client: client.fit("starter", "x", val_data={"a": 1}), SettingsError, "val_data = {'a': 1}"),
        (lambda client: client.fit("starter", "x", run_name=5), SettingsError, "run_name = 5 is not a valid name"),
        (lambda client: client.fit("starter", "x", description=5), SettingsError, "description = 5: give a text"),
        (lambda client: client.fit(), SettingsError, "model is missing"),
        (lambda client: client.evaluate("starter", 3), SettingsError, "eval_data = 3"),
        (lambda client: client.get_run(5), SettingsError, "name = 5: give a text"),
        (lambda client: client.list_runs(states="FAILED"), SettingsError, "states = 'FAILED': give a list"),
        (lambda client: client.list_runs(states=["FAILD"]), SettingsError, "'FAILD' is none. Runs are CREATED"),
        (lambda client: client.list_runs(limit=-1), SettingsError, "limit = -1: give a whole number"),
        (lambda client: client.dataset(5), SettingsError, "name = 5: give a text"),
        (lambda client: client.delete_runs(""), SettingsError, "experiment_name = '' is not a valid name"),
        (lambda _: AttuneClient(5), SettingsError, "The address 5 cannot be used"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_before_anything_is_sent(
    call: Callable[[AttuneClient], object], error: type[Exception], message: str, free_port: int
) -> None:
    with pytest.raises(error) as caught:
        call(AttuneClient(f"http://127.0.0.1:{free_port}"))
    assert message in str(caught.value)


def test_pairs_of_texts_are_pushed_from_a_csv_and_told_of_as_texts(
    name: str, attune: AttuneClient, service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,document,lang\nhow old?,ten,en\nhow far?,a mile,en\n,nothing,en\nhow old?,ten years,en\n")

    report = attune.push(name, path, progress=False)

    assert (report.images, report.texts, report.captions, report.rejected) == (0, 2, 3, 1)
    assert report.problems[0].source == "pairs.csv, line 4 (the query is empty)"
    [listed] = [one for one in attune.list_datasets() if one.name == name]
    assert (listed.images, listed.texts) == (0, 2)
    process = client_process(service, "push", "--name", name, "--data", path)
    assert f"{name}: 2 queries with 3 documents, 1 rejected" in process.communicate()[0].decode()
    with pytest.raises(DataError, match=r"with a picture \(1\) and with a text \(1\)"):
        attune.push(name, [TrainingExample(text="q", captions=["a"]), TrainingExample(image=picture("red"), captions=["b"])])


def test_pairs_of_pictures_are_pushed_from_a_csv_and_told_of_as_matches(
    name: str, attune: AttuneClient, service: Service, tmp_path: Path
) -> None:
    for colour in ("red", "green", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    path = tmp_path / "pairs.csv"
    path.write_text("image,match\nred.png,green.png\nred.png,blue.png\nblue.png,red.png\ngreen.png,none.png\n")

    report = attune.push(name, path, progress=False)

    assert (report.images, report.captions, report.matches, report.rejected) == (2, 0, 3, 1)
    assert report.problems[0].source == f"pairs.csv, line 5 ({tmp_path / 'none.png'}: no such file)"
    [listed] = [one for one in attune.list_datasets() if one.name == name]
    assert (listed.images, listed.matches) == (2, 3)
    process = client_process(service, "push", "--name", name, "--data", path)
    assert f"{name}: 2 pictures with 3 matches, 1 rejected" in process.communicate()[0].decode()
