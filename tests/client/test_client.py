import re
import time
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import client
from attune.callback_settings import KINDS
from attune.config import check_settings
from attune.errors import DataError, ServiceUnavailable, SettingsError
from attune.schemas import EvaluationResult, FinetuningRun, RunEvent, TrainingExample
from client import AttuneClient, EvaluationCallback
from client.callbacks import Callback
from client.display import examples_tables, metrics_table, runs_table
from client.progress import TrainingBar
from client.pushes import Pushes
from client.run import Run
from client.transport import connect


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_service_that_is_not_running_is_named_at_once(
    scheme: str, free_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    import jina  # noqa: F401  the two seconds of its import are not what is measured

    url = f"{scheme}://localhost:{free_port}"
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=rf"No Attune service answers at {url}\. Start one with `jina flow"):
        AttuneClient(url).list_runs()
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_push_to_a_service_that_is_not_running_is_not_tried_again(free_port: int) -> None:
    client = AttuneClient(f"http://localhost:{free_port}")
    start = time.monotonic()
    with pytest.raises(ServiceUnavailable):
        client.push("emoji", [TrainingExample(image=b"x", captions=["a dot"])], progress=False)
    assert time.monotonic() - start < 2


def test_search_names_the_search_flow(free_port: int) -> None:
    with pytest.raises(ServiceUnavailable, match=r"flows/search\.yml"):
        AttuneClient(search_url=f"http://localhost:{free_port}").search("a smiling cat")


def test_fit_reports_all_bad_settings_before_it_sends_anything(free_port: int) -> None:
    client = AttuneClient(f"grpc://localhost:{free_port}")
    with pytest.raises(SettingsError) as caught:
        client.fit("starter", "emoji", run_name="a/b", epochs=0, los="CLIPLoss", loss="CLIPLos")
    message = str(caught.value)
    for part in (
        "epochs = 0",
        "los = 'CLIPLoss'",
        "did you mean 'loss'",
        "did you mean 'CLIPLoss'",
        "run_name = 'a/b'",
    ):
        assert part in message


def test_fit_checks_settings_before_it_pushes_data(free_port: int, tmp_path: Path) -> None:
    client = AttuneClient(f"grpc://localhost:{free_port}")
    with pytest.raises(SettingsError, match="epochs = 0"):
        client.fit("starter", tmp_path / "not-there.csv", epochs=0)


def test_push_of_a_missing_file_names_it(free_port: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder .*nothing\.csv"):
        AttuneClient(f"grpc://localhost:{free_port}").push("emoji", tmp_path / "nothing.csv")


def test_push_of_nothing_is_refused(free_port: int) -> None:
    with pytest.raises(DataError, match="nothing to push as 'emoji'"):
        AttuneClient(f"grpc://localhost:{free_port}").push("emoji", [])


def test_push_under_an_unusable_name_is_refused(free_port: int) -> None:
    with pytest.raises(SettingsError, match=r"name = '\.\./emoji' is not a valid name"):
        AttuneClient(f"grpc://localhost:{free_port}").push("../emoji", [])


def test_search_by_a_missing_picture_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.png' cannot be read"):
        AttuneClient().search(tmp_path / "cat.png")


def test_evaluate_reports_all_bad_settings_before_it_pushes_data(free_port: int, tmp_path: Path) -> None:
    client = AttuneClient(f"grpc://localhost:{free_port}")
    with pytest.raises(SettingsError) as caught:
        client.evaluate("starter", tmp_path / "not-there.csv", epochs=3, devices="gpu")
    assert "leave out epochs" in str(caught.value)
    assert "devices = 'gpu'" in str(caught.value)


def test_every_callback_has_the_fields_that_its_settings_have_and_their_defaults() -> None:
    kinds = {**{kind.kind: kind for kind in Callback.__subclasses__()}, "evaluation": EvaluationCallback}
    assert set(kinds) == set(KINDS)
    for name, kind in kinds.items():
        assert {field.name for field in fields(kind)} | {"kind"} == set(KINDS[name].model_fields)
        assert getattr(client, kind.__name__) is kind
        if name in ("evaluation", "own"):
            continue
        [made] = check_settings({**NEEDED, "callbacks": [{"kind": name}]}).callbacks
        assert check_settings({**NEEDED, "callbacks": [kind().settings()]}).callbacks == (made,)


def test_callbacks_become_settings_as_they_are() -> None:
    settings = Pushes("my-run", "default").callbacks(
        [
            client.EarlyStopping("mean_recall", patience=3),
            EvaluationCallback(Path("queries.csv")),
            client.OwnCallback("mine.Callback", {"path": "x"}),
            client.TensorBoardLogger(),
            client.MLflowLogger(experiment="pictures"),
        ]
    )

    assert settings[0] == {
        "kind": "early_stopping",
        "monitor": "mean_recall",
        "mode": "auto",
        "patience": 3,
        "min_delta": 0.0,
    }
    assert settings[1]["query_data"] == "my-run-query-2"
    assert settings[2] == {"kind": "own", "name": "mine.Callback", "options": {"path": "x"}}
    assert settings[3:] == [{"kind": "tensorboard"}, {"kind": "mlflow", "experiment": "pictures", "tags": {}}]
    assert len(check_settings({**NEEDED, "callbacks": settings}).callbacks) == 5


NEEDED = {"model": "starter", "train_data": "emoji"}


def test_a_callback_that_is_not_in_a_list_is_told_so(free_port: int) -> None:
    said = r"callbacks = EvaluationCallback\(query_data='queries'.*: give a list of callbacks\. What is done"
    with pytest.raises(SettingsError, match=said):
        AttuneClient(f"grpc://localhost:{free_port}").fit(
            "starter",
            "emoji",
            callbacks=EvaluationCallback("queries"),  # type: ignore[arg-type]
        )


def test_data_that_is_not_pushed_yet_gets_names_of_the_runs_own() -> None:
    pushes = Pushes("my-run", "default")
    queries, index, more = Path("queries.csv"), [TrainingExample()], Path("more.csv")

    settings = pushes.callbacks(
        [
            EvaluationCallback(queries, index, limit=5),
            EvaluationCallback("pushed", exclude_self=True),
            EvaluationCallback(more, "pushed"),
            {"query_data": "by hand"},
        ]
    )

    assert pushes.data == {"my-run-query": queries, "my-run-index": index, "my-run-query-3": more}
    plain = {"exclude_self": False, "distance": "cosine", "gather_examples": False}
    assert settings == [
        {**plain, "query_data": "my-run-query", "index_data": "my-run-index", "limit": 5},
        {**plain, "query_data": "pushed", "exclude_self": True},
        {**plain, "query_data": "my-run-query-3", "index_data": "pushed"},
        {"query_data": "by hand"},
    ]


def printed(table: RenderableType, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


MEASURED = {"text_to_image_recall@5": 0.5, "image_to_text_mrr": 0.25}


def test_a_model_without_a_baseline_is_shown_with_its_own_intervals() -> None:
    low, high = ({name: value + change for name, value in MEASURED.items()} for change in (-0.1, 0.1))
    result = EvaluationResult(
        images=24, captions=48, after=MEASURED, after_low=low, after_high=high, warnings=["few pictures: 24"]
    )
    run = FinetuningRun(name="alone", settings={"eval_data": "shapes"}, evaluation=result)

    shown = printed(metrics_table(run))

    heading, *_ = [line for line in shown.splitlines() if "metric" in line]
    assert heading.split() == ["┃", "metric", "┃", "model", "┃", "95", "%", "interval", "┃"]
    assert "0.500" in shown
    assert "0.400 to 0.600" in shown
    assert "difference" not in shown
    assert "few pictures: 24" in shown
    assert "0.500" in printed(runs_table([run]))
    assert "->" not in printed(runs_table([run]))


def test_each_run_is_listed_with_the_direction_of_its_figure_and_one_without_figures_with_none() -> None:
    known = FinetuningRun(name="known", evaluation=EvaluationResult(after=MEASURED))

    lines = printed(runs_table([known, FinetuningRun(name="queued")]), 200).splitlines()

    [heading] = [line for line in lines if "experiment" in line]
    assert heading.rstrip("┃ ").endswith("recall@5")
    assert "text to image" not in heading
    assert ["0.500 (text to image)" in line for line in lines if "known" in line] == [True]
    assert ["(" in line for line in lines if "queued" in line] == [False]


@pytest.mark.parametrize(
    ("settings", "columns"),
    [({"train_data": "shapes"}, ["before", "after"]), ({"eval_data": "shapes"}, ["baseline", "model"])],
)
def test_two_models_have_a_column_each_and_their_difference(settings: dict[str, str], columns: list[str]) -> None:
    before = {name: value - 0.125 for name, value in MEASURED.items()}
    result = EvaluationResult(
        before=before, after=MEASURED, difference_low={"image_to_text_mrr": 0.01}, difference_high={"image_to_text_mrr": 0.2}
    )
    run = FinetuningRun(name="both", settings=settings, evaluation=result)

    shown = printed(metrics_table(run))

    heading, *_ = [line for line in shown.splitlines() if "metric" in line]
    assert heading.replace("┃", " ").split() == ["metric", *columns, "difference"]
    assert "0.375 │ 0.500" in " ".join(shown.split())
    assert "+0.125 (+0.010 to +0.200)" in shown
    assert "0.375 -> 0.500" in printed(runs_table([run]))


def test_examples_without_a_before_have_one_rank_and_one_list_of_hits() -> None:
    example = {
        "query": "a cat",
        "image": 3,
        "rank_after": 1,
        "hits_after": [{"image": 3, "caption": "the cat", "score": 0.9}],
    }

    shown = printed(examples_tables([example], ("baseline", "model"), 3))

    assert "the cat" in shown
    assert "before" not in shown
    assert "->" not in shown


@pytest.mark.parametrize("k", [0, -1, "3", True, None])
def test_examples_are_shown_in_a_whole_number_of_at_least_one(k: object, free_port: int) -> None:
    run = Run(connect(f"grpc://localhost:{free_port}", "flows/finetune.yml"), FinetuningRun(name="alone"))

    with pytest.raises(SettingsError, match=re.escape(f"k = {k!r}: give a whole number from 1 to ")):
        run.display_examples(k)  # type: ignore[arg-type]


def test_the_bar_of_a_run_that_trains_nothing_is_full_in_the_end() -> None:
    bar = TrainingBar("alone", show=False)
    [task] = bar._progress.tasks
    bar.follow(RunEvent(kind="state", message="state EVALUATING"))
    assert task.total is None
    assert task.description == "alone: state EVALUATING"
    bar.follow(RunEvent(kind="state", message="state FINISHED"))
    assert task.finished


def test_the_bar_of_a_run_that_trains_stays_at_its_steps() -> None:
    bar = TrainingBar("tuned", show=False)
    [task] = bar._progress.tasks
    bar.follow(RunEvent(kind="progress", message="", values={"step": 3, "steps": 8}))
    bar.follow(RunEvent(kind="state", message="state FINISHED"))
    assert (task.completed, task.total) == (3, 8)
