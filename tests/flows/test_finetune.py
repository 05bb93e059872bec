"""The whole way through the real service with the real client: push, fit, follow, look, download."""

import hashlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docarray import DocList
from jina import Client

from attune.data.embeddings import to_bytes
from attune.data.keys import batch_key
from attune.errors import (
    DataError,
    DatasetNotFound,
    EvaluationError,
    ModelError,
    RunError,
    RunExists,
    RunFailed,
    RunNotFound,
    SearchError,
    SettingsError,
)
from attune.metrics import mean_recall
from attune.models.clip import load_folder
from attune.schemas import ENDPOINTS, DatasetReport, FinetuningRun, TrainingExample
from client import AttuneClient, EvaluationCallback
from client.__main__ import compare
from client.run import Run
from flows.background import Service, running
from tests.attune.embeddings import DIMENSION, sounds, vectors
from tests.attune.matches import drawings
from tests.attune.sentences import save_sentence
from tests.attune.texts import questions

SETTINGS = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-4}

RUN_FILES = """
.run.lock
.stage.lock
artifact/README.md
artifact/manifest.json
artifact/metrics.json
artifact/open_clip_config.json
artifact/open_clip_model.safetensors
artifact/settings.json
checkpoints/best.safetensors
checkpoints/chosen.safetensors
checkpoints/last.pt
checkpoints/optimizer.safetensors
checkpoints/recipe.json
checkpoints/start.safetensors
environment.json
evaluate.log
events.jsonl
export.log
report/README.md
report/examples.json
report/examples.png
report/index.html
report/metrics.json
report/plots/learning_rate.png
report/plots/logit_scale.png
report/plots/loss.png
report/plots/mean_recall.png
report/plots/recall_image_to_text.png
report/plots/recall_text_to_image.png
report/plots/similarity_after.png
report/plots/similarity_before.png
report/ranks.npz
run.json
train.log
""".split()


@pytest.fixture(scope="module")
def run(attune: AttuneClient, flickr_folder: Path, tiny_model: Path) -> Run:
    """A finished run."""
    report = attune.push("flickr", flickr_folder)
    assert (report.images, report.captions, report.rejected) == (60, 120, 0)
    callback = EvaluationCallback("flickr", limit=5, caption="all of it")
    return attune.fit(str(tiny_model), "flickr", wait=True, callbacks=[callback], **SETTINGS)


@pytest.fixture(scope="module")
def measured(attune: AttuneClient, run: Run, tiny_model: Path, make_examples: Callable[..., list[TrainingExample]]) -> Run:
    """The finished run's model beside the one it came from, on examples that are pushed for it."""
    return attune.evaluate(run.name, make_examples(20), baseline=str(tiny_model), wait=True)


def test_run_folder_holds_exactly_these_files(run: Run, home: Path) -> None:
    folder = home / "runs" / "default" / run.name
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == RUN_FILES


def test_run_ends_finished_with_every_stage_timed(run: Run) -> None:
    assert run.status() == "FINISHED"
    assert set(run.document.stage_seconds) == {"validate", "train", "evaluate", "export"}
    assert run.document.training.steps == 2 * 4  # 60 pictures less 6 held out less 5 for validation: 49 / 16 -> 4 an epoch


def test_figures_shown_are_those_in_the_run_folder(run: Run, home: Path) -> None:
    stored = json.loads((home / "runs" / "default" / run.name / "report" / "metrics.json").read_text())
    shown = run.metrics()
    assert shown["before"] == stored["before"]
    assert shown["after"] == stored["after"]
    assert stored["images"] == 6


def test_chosen_checkpoint_is_never_worse_on_validation_than_the_start(run: Run) -> None:
    assert run.document.training.best_recall >= run.document.training.start_recall
    assert 0 <= mean_recall(run.metrics()["after"]) <= 1


def test_logs_tell_the_story_in_order(run: Run) -> None:
    lines = list(run.stream_logs())
    assert "\n".join(lines) == run.logs()
    states = [line.split("state ")[1] for line in lines if " state " in line]
    assert states == ["VALIDATING", "TRAINING", "EVALUATING", "EXPORTING", "FINISHED"]


def test_artifact_downloads_whole_and_opens_in_open_clip(run: Run, tmp_path: Path) -> None:
    import open_clip

    folder = run.save_artifact(tmp_path / "tuned")
    assert {path.name for path in folder.iterdir()} == set(run.document.artifact.files)
    model = open_clip.create_model(f"local-dir:{folder}")
    assert model.visual is not None
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == set(run.document.artifact.files) - {"manifest.json"}


def test_examples_and_metrics_are_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.display_metrics()
    run.display_examples(2)
    printed = capsys.readouterr().out
    assert "recall@5" in printed
    assert run.example_results()[0]["query"].split()[0] in printed


def test_run_is_found_again_by_another_client(run: Run, service: Service) -> None:
    other = AttuneClient(service.http)
    assert other.get_run(run.name).metrics() == run.metrics()
    assert run.name in [found.name for found in other.list_runs()]


def test_same_data_pushed_twice_is_stored_once(attune: AttuneClient, run: Run, flickr_folder: Path, home: Path) -> None:
    contents = set((home / "datasets" / "content").iterdir())
    assert attune.push("flickr-again", flickr_folder).fingerprint == attune.dataset("flickr").fingerprint
    assert set((home / "datasets" / "content").iterdir()) == contents


def test_callbacks_figures_are_in_the_log_of_every_epoch(run: Run) -> None:
    lines = [line.split(" all of it, ")[1] for line in run.logs().splitlines() if " all of it, " in line]
    assert [line.split(":")[0] for line in lines] == [f"epoch {epoch}, first 5" for epoch in (0, 1, 2)]
    assert all("precision 0." in line for line in lines)


def test_models_are_measured_beside_each_other_with_nothing_trained(measured: Run, attune: AttuneClient, home: Path) -> None:
    assert measured.status() == "FINISHED"
    assert set(measured.document.stage_seconds) == {"validate", "evaluate"}
    assert measured.config["eval_data"] == f"{measured.name}-eval"
    assert attune.dataset(f"{measured.name}-eval").images == measured.document.evaluation.images == 20
    assert measured.metrics()["before"].keys() == measured.metrics()["difference"].keys()
    states = [line.split("state ")[1] for line in measured.logs().splitlines() if " state " in line]
    assert states == ["VALIDATING", "EVALUATING", "FINISHED"]
    folder = home / "runs" / "default" / measured.name
    assert not [path for path in folder.rglob("*") if path.parent.name in ("checkpoints", "artifact")]


def test_a_model_alone_has_figures_and_examples_without_a_before(
    attune: AttuneClient, measured: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = attune.evaluate(measured.config["model"], measured.config["eval_data"], wait=True)
    alone.display_metrics()
    alone.display_examples(2)

    assert alone.metrics()["before"] == {}
    assert alone.metrics()["after"] == measured.metrics()["after"]
    assert "baseline" not in capsys.readouterr().out
    with pytest.raises(RunError, match=f"Run '{alone.name}' has no artifact: it measured .* and trained nothing"):
        alone.save_artifact()


def test_the_report_is_one_page(run: Run, measured: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for one, to in ((run, None), (measured, tmp_path / "pages" / "measured.html")):
        page = one.report(to)
        assert page == Path(to or f"{run.name}-report.html")
        assert page.read_text().startswith("<!DOCTYPE html>")


def test_two_runs_are_shown_side_by_side_if_they_were_measured_alike(
    attune: AttuneClient, run: Run, measured: Run, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = attune.evaluate(str(tiny_model), measured.config["eval_data"], wait=True)
    compare(start.name, measured.name, url=attune._transport.address.url)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"difference: {measured.name} minus {start.name}" in printed
    leak, *_ = measured.document.evaluation.warnings
    assert f"{measured.name}: {leak}" in attune.compare(start, measured).notes
    assert f"{measured.name}: Held-out pictures that are training pictures" in printed
    with pytest.raises(EvaluationError, match=f"the held-out part is .* in {run.name} and .* in {measured.name}"):
        compare(run.name, measured.name, url=attune._transport.address.url)


def test_second_run_of_a_name_is_refused(attune: AttuneClient, run: Run, tiny_model: Path) -> None:
    with pytest.raises(RunExists, match=f"{run.name}.*Choose another"):
        attune.fit(str(tiny_model), "flickr", run_name=run.name, **SETTINGS)


def test_bad_settings_are_refused_together(attune: AttuneClient) -> None:
    with pytest.raises(SettingsError, match=r"(?s)loss = 'CLIPLos'.*CLIPLoss.*learning_rat.*learning_rate"):
        attune.fit("starter", "flickr", loss="CLIPLos", learning_rat=1)


def test_unknown_model_is_refused_at_once(attune: AttuneClient, run: Run) -> None:
    with pytest.raises(ModelError, match="ViT-B-33.*Did you mean ViT-B-32"):
        attune.fit("ViT-B-33#openai", "flickr")


def test_unknown_dataset_is_refused_at_once(attune: AttuneClient, run: Run, tiny_model: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"nothing-here.*Push data under that name first.*flickr"):
        attune.fit(str(tiny_model), "nothing-here")


def test_unknown_run_names_the_known_ones(attune: AttuneClient, run: Run) -> None:
    with pytest.raises(RunNotFound, match=run.name):
        attune.get_run("not-there")


def test_dataset_of_one_pair_is_refused_when_a_run_wants_it(
    attune: AttuneClient, make_examples: Callable[..., list[TrainingExample]], tiny_model: Path
) -> None:
    attune.push("one", DocList[TrainingExample](make_examples(1)))
    with pytest.raises(DataError, match="'one' is too small.*1 distinct"):
        attune.fit(str(tiny_model), "one")


def test_every_bad_example_is_reported_and_the_good_ones_are_kept(
    attune: AttuneClient, make_examples: Callable[..., list[TrainingExample]]
) -> None:
    examples = make_examples(8)
    examples[1].image = examples[1].image[:50]
    examples[3].captions = ["  "]
    examples[5].image = b""
    report = attune.push("mixed", DocList[TrainingExample](examples))
    assert (report.images, report.rejected) == (5, 3)
    assert [(problem.source, problem.reason) for problem in report.problems] == [
        (examples[1].source, "unreadable_image"),
        (examples[3].source, "empty_caption"),
        (examples[5].source, "missing_image"),
    ]


def test_data_of_which_nothing_is_usable_is_one_error(attune: AttuneClient) -> None:
    with pytest.raises(DataError, match="Nothing of dataset 'rubbish' can be used"):
        attune.push("rubbish", DocList[TrainingExample]([TrainingExample(image=b"no picture", captions=["x"])]))


def test_killed_training_fails_its_run_and_not_the_service(
    attune: AttuneClient, run: Run, tiny_model: Path, home: Path
) -> None:
    victim = attune.fit(
        str(tiny_model), "flickr", **{**SETTINGS, "epochs": 5000, "early_stopping_patience": 0, "learning_rate": 1e-6}
    )
    os.kill(_child_of(home, victim.name), signal.SIGKILL)
    with pytest.raises(RunFailed, match="killed, most often for using more memory"):
        victim.wait(progress=False)
    assert run.status() == "FINISHED"


def test_metrics_of_every_executor_are_on_their_ports(run: Run, service: Service) -> None:
    pages = {number: _metrics(service.monitoring_port + number) for number in range(6)}
    assert 'attune_runs{state="FINISHED"}' in pages[1]
    assert "attune_examples_accepted_total" in pages[2]
    for name in ("attune_train_seconds_count", "attune_loss", "attune_pairs_per_second", "attune_validation_recall"):
        assert name in pages[3]
    assert "attune_text_to_image_recall_at_5" in pages[4]
    assert "attune_export_seconds_count" in pages[5]


def test_bad_examples_are_counted_by_reason(
    attune: AttuneClient, service: Service, make_examples: Callable[..., list[TrainingExample]]
) -> None:
    attune.push("counted", DocList[TrainingExample]([*make_examples(3), TrainingExample(image=b"x", captions=["y"])]))
    assert 'attune_bad_examples_total{reason="unreadable_image"}' in _metrics(service.monitoring_port + 2)
    twice = [TrainingExample(text="call", label=label) for label in ("talk", "work")]
    report = attune.push("labels", DocList[TrainingExample]([*twice, TrainingExample(text="book", label="talk")]))
    assert (report.texts, report.rejected, len(report.problems)) == (1, 2, 2)
    assert 'attune_bad_examples_total{reason="several_labels"}' in _metrics(service.monitoring_port + 2)


def test_events_are_streamed_to_browsers(run: Run, service: Service) -> None:
    with urllib.request.urlopen(f"{service.http}/runs/{run.name}/events") as stream:
        text = stream.read().decode()
    assert text.count("\nevent: ") + text.startswith("id: 1\n") >= len(run.logs().splitlines())
    assert "state FINISHED" in text.splitlines()[-2]


def test_http_describes_every_endpoint(service: Service) -> None:
    with urllib.request.urlopen(f"{service.http}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    assert set(ENDPOINTS) - {"/index", "/search"} <= set(paths)


def test_http_errors_have_a_status_and_a_message(service: Service) -> None:
    body = json.dumps({"data": [{"name": "not-there"}]}).encode()
    request = urllib.request.Request(f"{service.http}/runs/get", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(request)
    assert json.load(caught.value)["error"] == "RunNotFound"


def test_plain_jina_client_can_post_a_run_through_all_stages(run: Run, service: Service, tiny_model: Path) -> None:
    wanted = FinetuningRun(name="by-hand", settings={"model": str(tiny_model), "train_data": "flickr", **SETTINGS})
    client = Client(host=service.grpc)
    runs = [wanted, wanted]  # asked twice: the second finds everything done
    for asked in runs:
        done = client.post("/finetune", DocList[FinetuningRun]([asked]), return_type=DocList[FinetuningRun], stream=False)[0]
        assert done.state == "FINISHED"
        assert done.artifact.files
    lines = AttuneClient(service.grpc).get_run("by-hand").logs()
    assert lines.count("state TRAINING") == 1


def _child_of(home: Path, name: str) -> int:
    """The process id of the run's training, once it trains."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            events = home / "runs" / "default" / name / "events.jsonl"
            if b"train" in command and name.encode() in command and "step" in events.read_text():
                return int(entry.name)
        time.sleep(0.2)
    raise AssertionError(f"run {name} never trained")


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}") as page:
        text: str = page.read().decode()
    return text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "text-encoder"])
def test_pairs_of_texts_go_from_a_csv_to_an_artifact(
    service: Service, home: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    model = tiny_model if kind == "clip" else save_sentence(tmp_path / "bert")
    lines = [f"{example.text},{text}" for example in questions(40) for text in example.captions[:1]]
    path = tmp_path / "pairs.csv"  # no header, as Finetuner's users have them
    path.write_text("\n".join(lines) + "\n")

    settings = {"epochs": 1, "batch_size": 8, "devices": "cpu", "eval_split": 0.2, "check_pairs": False}
    run = AttuneClient(service.grpc).fit(f"{model}#scratch", path, run_name=f"texts-of-{kind}", wait=True, **settings)

    evaluation = run.document.evaluation
    assert (evaluation.images, evaluation.texts, evaluation.captions) == (0, 8, 8)
    assert run.config["lock_image"] is True
    run.display_metrics()
    run.display_examples(1)
    shown = capsys.readouterr().out
    assert "query to document recall@5" in shown
    assert "✓ a document of the query" in shown
    assert (
        load_folder(run.save_artifact(tmp_path / "artifact", progress=False)).encode_texts(["where is alpha south?"]).any()
    )
    assert "Held-out queries with their first answers" in run.report(tmp_path).read_text()


@pytest.mark.slow
def test_pairs_of_pictures_go_from_a_csv_to_an_artifact(
    service: Service, home: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for number, example in enumerate(drawings(40)):
        for name, image in ((f"{number}.png", example.image), (f"{number}-negative.png", example.images[0])):
            (tmp_path / name).write_bytes(image)
        lines.append(f"{number}.png,{number}-negative.png")
    path = tmp_path / "pairs.csv"  # no header
    path.write_text("\n".join(lines) + "\n")

    settings = {"epochs": 1, "batch_size": 8, "devices": "cpu", "eval_split": 0.2, "check_pairs": False}
    run = AttuneClient(service.grpc).fit(f"{tiny_model}#scratch", path, run_name="matches", wait=True, **settings)

    evaluation = run.document.evaluation
    assert (evaluation.images, evaluation.captions, evaluation.matches) == (8, 0, 8)
    assert run.config["lock_text"] is True
    run.display_metrics()
    run.display_examples(1)
    shown = capsys.readouterr().out
    assert "picture to match recall@5" in shown
    assert "✓ a match of the picture" in shown
    assert load_folder(run.save_artifact(tmp_path / "artifact", progress=False)).model is not None
    assert "Drawn at random, picture to match" in run.report(tmp_path).read_text()


def test_embeddings_of_another_model_go_the_whole_way_to_a_search(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, labels = vectors(120), [example.label for example in sounds(120)]
    columns = {"embedding": list(rows[:, 0]), "match": list(rows[:, 1]), "label": labels}
    path = tmp_path / "sounds.parquet"
    pq.write_table(pa.table(columns), path)

    settings = {"epochs": 8, "learning_rate": 1e-2, "devices": "cpu", "eval_split": 0.25}
    run = AttuneClient(service.grpc).fit("mlp", path, run_name="sounds", wait=True, **settings)

    evaluation = run.document.evaluation
    assert (evaluation.images, evaluation.matches, evaluation.dimension) == (30, 30, DIMENSION)
    assert evaluation.after["embedding_to_match_recall@10"] > evaluation.before["embedding_to_match_recall@10"]
    run.display_metrics()
    run.display_examples(1)
    shown = capsys.readouterr().out
    assert "embedding to match recall@5" in shown
    assert "✓ a match of the embedding" in shown
    assert "<img" not in run.report(tmp_path).read_text()
    artifact = run.save_artifact(tmp_path / "artifact", progress=False)
    names = {"ATTUNE_ARTIFACT": str(artifact), "ATTUNE_INDEX": "sounds"}
    with running(Path("flows/search.yml"), tmp_path / "search", tmp_path / "search.log", **names) as search:
        for url in (search.grpc, search.http):
            attune = AttuneClient(search_url=url)
            assert attune.index(path, progress=False) == 120
            found = [[hit.key for hit in attune.search(row[0].tolist(), limit=10)] for row in rows[:20]]
            keys = [hashlib.sha256(to_bytes(row[1])).hexdigest()[:16] for row in rows[:20]]
            assert sum(key in hits for key, hits in zip(keys, found, strict=True)) > 8  # by chance 2
            with pytest.raises(SearchError, match="it has no embedding"):
                attune.search("a bell")


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_embeddings_are_pushed_as_numbers_too(service: Service, way: str) -> None:
    """As those do who write their own client; ours sends them as bytes, a part of the size."""
    examples = DocList[TrainingExample]([*sounds(3), TrainingExample(embedding=[0.0, 1.0], embeddings=[[1.0]], source="x")])
    parameters = {"name": f"numbers-{way}", "upload": f"numbers-{way}"}
    if way == "grpc":
        host = service.grpc.removeprefix("grpc://")
        answer = Client(host=f"grpc://{host}").post(
            "/push", examples, parameters=parameters, return_type=DocList[DatasetReport], stream=False
        )
        reasons, key = answer[0].reasons, answer[0].batches[0]
    else:
        body = {"data": [json.loads(example.model_dump_json(exclude={"id"})) for example in examples]}
        request = urllib.request.Request(
            f"{service.http}/push",
            json.dumps({**body, "parameters": parameters}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            [report] = json.load(response)["data"]
        reasons, key = report["reasons"], report["batches"][0]

    assert reasons == {"other_length": 1}
    assert key == batch_key(examples)
