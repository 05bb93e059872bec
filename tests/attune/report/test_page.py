"""The report as a folder, and its page as a browser shows it."""

import dataclasses
import json
import re
import shlex
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attune.data.pairs import Pairs
from attune.evaluation.comparison import Row
from attune.evaluation.measure import Measurement
from attune.metrics import DIRECTIONS, retrieval_metrics
from attune.report.facts import figure, p_value, plain, reproduce, setting_rows
from attune.report.material import Material
from attune.report.page import by_direction, write_report
from attune.report.verdict import verdict
from attune.schemas import EvaluationResult, FinetuningRun
from attune.settings import FinetuningSettings
from client.__main__ import _parse_settings
from client.client import AttuneClient
from tests.attune.report.browser import Look, look

HOSTILE = '<script>document.title = "taken"</script><img src="https://example.com/x.png">'
NAMES = ["a cat", "شمس", "🙂", HOSTILE]
FACTS = {
    "sections": [
        {"name": "headline", "title": "Retrieval", "definition": "Told first.", "rows": [
            {"metric": "text_to_image_recall@5", "before": 0.125, "after": 0.875, "low": 0.5, "high": 0.9, "p_value": 1e-4},
        ]},
        {"name": "more", "title": "Other figures", "definition": "Told later.", "rows": [
            {"metric": "text_to_image_map@10", "before": 0.625, "after": 0.375, "low": -0.4, "high": -0.1, "p_value": 0.02},
            {"metric": "accuracy", "before": None, "after": None},
        ]},
        {"name": "none", "title": "A section without rows", "definition": "", "rows": []},
    ],
    "slices": [
        {"tag": "style", "value": value, "queries": n, "before": 0.25, "after": 0.5, "low": low, "high": high, "p_value": p}
        for value, n, low, high, p in ((HOSTILE, 40, 0.1, 0.4, 0.5), ("flat", 7, None, None, None))
    ],
    "wins": {
        "text_to_image": {"better": 101, "worse": 7, "same": 13},
        "image_to_text": {"better": 0, "worse": 0, "same": 0},
    },
    "zero_shot": {
        "prompts": ["a photo of a {c}."],
        "chance": 0.25,
        "majority": 0.5,
        "classes": [
            {"name": name, "images": 8, "recall": 0.75, "precision": None, "confused_with": NAMES[0]} for name in NAMES
        ],
        "confusion": (np.eye(4) * 6 + 0.5).tolist(),
    },
    "leakage": "No picture is in both parts.",
    "warnings": [f"Watch out for {HOSTILE}"],
    "environment": {"python": "3.11", "packages": {"torch": "2.9"}, "cores": None},
}  # fmt: skip


def texts(material: Material, captions: list[str]) -> Material:
    """The same material with these captions, in turn, in place of its own."""
    test = material.test
    turn = cycle(captions)
    every = [[next(turn) for _ in own] for own in test.captions]
    pairs = Pairs(test.fingerprint, test.images, every, test.groups)
    return dataclasses.replace(material, test=pairs)


@pytest.fixture(scope="module")
def folder(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run."""
    path = tmp_path_factory.mktemp("report") / "report"
    write_report(path, material)
    return path


@pytest.fixture(scope="module")
def seen(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Look:
    return look((folder / "index.html").read_text(), tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def hostile(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """A page with everything on it, and with captions that are no plain text."""
    path = tmp_path_factory.mktemp("hostile")
    captions = [HOSTILE, "word " * 500, "unbroken" * 90, "שלום עולם", "🙂👩‍👩‍👧"]
    enough = material.run.evaluation.model_copy(update={"images": 60})
    run = material.run.model_copy(update={"evaluation": enough})
    write_report(path, dataclasses.replace(texts(material, captions), facts=FACTS, run=run))
    return look((path / "index.html").read_text(), path)


@pytest.fixture(scope="module")
def bare(evaluated_only: Material, tmp_path_factory: pytest.TempPathFactory) -> Look:
    path = tmp_path_factory.mktemp("bare")
    write_report(path, evaluated_only)
    return look((path / "index.html").read_text(), path)


@pytest.fixture(params=["seen", "hostile", "bare"])
def page(request: pytest.FixtureRequest) -> Look:
    """Each of the pages."""
    found: Look = request.getfixturevalue(request.param)
    return found


def test_the_folder_has_exactly_these_files(folder: Path) -> None:
    plots = "loss learning_rate mean_recall logit_scale recall_image_to_text recall_text_to_image".split()
    plots += ["similarity_after", "similarity_before"]

    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(
        ["README.md", "examples.json", "examples.png", "index.html", *(f"plots/{name}.png" for name in plots)]
    )
    assert (folder / "index.html").stat().st_size < 1_500_000
    for path in folder.glob("plots/*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500


def test_a_page_opens_without_errors_scripts_or_requests(page: Look) -> None:
    assert page.console == []
    assert page.found["scripts"] == 0
    assert [address[:5] for address in page.found["fetched"] if not address.startswith("data:")] == []


def test_the_browser_would_tell_of_a_request(folder: Path, tmp_path: Path) -> None:
    html = (folder / "index.html").read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">', 1)

    found = look(html, tmp_path)

    assert "Content Security Policy" in "".join(found.console)
    assert [0, ""] in found.found["images"]


def test_nothing_on_the_page_points_outside_of_it(folder: Path) -> None:
    html = (folder / "index.html").read_text()

    assert set(re.findall(r'(?:src|href)="(#|data:image/|[^"]*)', html)) == {"#", "data:image/"}
    assert "url(" not in re.sub(r"url\(#", "", html)


def test_a_page_fits_a_narrow_screen(page: Look) -> None:
    assert page.found["shown"] == 400
    assert page.found["width"] == page.found["room"]


def test_every_picture_is_there_and_has_a_text(page: Look) -> None:
    assert len(page.found["images"]) >= 36
    assert all(width > 0 and alt for width, alt in page.found["images"])
    assert page.found["drawings"]
    assert all(page.found["drawings"])


def test_headings_go_down_one_level_at_a_time_and_ids_are_unique(page: Look) -> None:
    levels = [int(tag[1]) for tag, _ in page.found["headings"]]

    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.found["ids"]) == len(set(page.found["ids"]))


def test_the_page_shows_the_figures_of_the_run(seen: Look, material: Material) -> None:
    result = material.run.evaluation
    expected = [
        ["recall@5", f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f} ({low:+.3f} to {high:+.3f})", "", "< 0.001"]
        for before, after, low, high in (
            [
                figures[f"{direction}_recall@5"]
                for figures in (result.before, result.after, result.difference_low, result.difference_high)
            ]
            for direction in DIRECTIONS
        )
    ]

    assert [cells[:6] for cells in seen.found["cells"] if cells[0] == "recall@5"] == expected
    assert seen.found["title"] == "teacher: before and after"
    assert verdict(result)[0] in seen.found["text"]
    assert "Intervals are 95 %, of the difference, by paired bootstrap over pictures." in seen.found["text"]


def test_of_few_pictures_nothing_is_called_better_or_worse(seen: Look, material: Material) -> None:
    assert material.run.evaluation.images < 20
    assert "Too few pictures to judge" in seen.found["text"]
    assert not {"▲ better", "▼ worse"} & {cell for cells in seen.found["cells"] for cell in cells}


def test_a_model_that_was_only_measured_has_no_before_and_no_training(bare: Look, evaluated_only: Material) -> None:
    result, name = evaluated_only.run.evaluation, "text_to_image_recall@1"
    interval = f"{result.after_low[name]:.3f} to {result.after_high[name]:.3f}"

    assert bare.found["title"] == "as-it-is: evaluation"
    assert ["recall@1", f"{result.after[name]:.3f}", interval] in bare.found["cells"]
    assert ["median rank", f"{result.after['text_to_image_median_rank']:.3f}", "–"] in bare.found["cells"]
    assert ["metric", "value", "95 % interval"] in bare.found["cells"]
    assert "Intervals are 95 %, by bootstrap over pictures." in bare.found["text"]
    assert "paired" not in bare.found["text"]
    assert "Training" not in [text for _, text in bare.found["headings"]]
    assert "Better, text to image" not in [text for _, text in bare.found["headings"]]
    assert "python -m client evaluate --model starter --eval-data shapes" in bare.found["text"]


def test_what_users_wrote_is_shown_and_never_run(hostile: Look) -> None:
    assert hostile.found["title"] == "teacher: before and after"
    assert f"Watch out for {HOSTILE}" in hostile.found["text"]
    assert hostile.found["text"].count(HOSTILE) >= 4
    assert "שלום עולם" in hostile.found["text"]
    assert "word " * 20 not in hostile.found["text"]
    assert "unbroken" * 12 in hostile.found["text"]
    assert "unbroken" * 13 not in hostile.found["text"]
    assert "Labels, in lower case and with spaces for underscores, stand in 1 prompt" in hostile.found["text"]


def test_sections_slices_wins_and_classes_are_tables(hostile: Look) -> None:
    cells = hostile.found["cells"]

    assert ["recall@5", "0.125", "0.875", "+0.750 (+0.500 to +0.900)", "", "< 0.001", "▲ better"] in cells
    assert ["flat", "7", "0.250", "0.500", "+0.250", "", "–", ""] in cells
    # Its interval leaves zero out, and its corrected p-value says that this happens by chance.
    assert [HOSTILE, "40", "0.250", "0.500", "+0.250 (+0.100 to +0.400)", "", "0.500", ""] in cells
    assert ["text to image", "101", "13", "7", ""] in cells
    assert ["2", "شمس", "8", "0.750", "–", "a cat"] in cells
    # Closed details have no rendered text; that of the whole document has them.
    assert all(part in hostile.found["text"] for part in ("Told later.", "map@10", "0.625", "0.375", "▼ worse"))
    assert "A section without rows" not in hostile.found["text"]
    assert "torch 2.9" in hostile.found["text"]


def test_a_single_picture_and_embeddings_that_are_no_numbers_are_reported_too(material: Material, tmp_path: Path) -> None:
    one = material.test.take([0])
    one = dataclasses.replace(one, captions=[one.captions[0][:1]])
    nothing = np.full((1, 32), np.nan, dtype=np.float32)
    ranks = {direction: np.array([1]) for direction in DIRECTIONS}
    measured = Measurement(retrieval_metrics(ranks), ranks, nothing, nothing)
    run = material.run.model_copy(update={"evaluation": EvaluationResult(images=1, captions=1, after=measured.metrics)})

    write_report(tmp_path, dataclasses.replace(material, run=run, test=one, before=None, after=measured))

    (example,) = json.loads((tmp_path / "examples.json").read_text())
    assert example["hits_after"] == [{"image": 0, "caption": one.captions[0][0], "right": True, "score": None}]


def row(before: float, after: float, low: float | None, high: float | None, images: int = 60) -> EvaluationResult:
    names = [f"{direction}_recall@{k}" for direction in DIRECTIONS for k in (1, 5)]
    ends = {"difference_low": low, "difference_high": high}
    return EvaluationResult(
        images=images,
        captions=2 * images,
        before={} if before < 0 else dict.fromkeys(names, before),
        after=dict.fromkeys(names, after),
        **{name: {} if end is None else dict.fromkeys(names, end) for name, end in ends.items()},
    )


@pytest.mark.parametrize(
    ("result", "headline", "said"),
    [
        (row(0.5, 0.75, 0.125, 0.375), "Better", "rose from 0.500 to 0.750 (+0.250, 95 % interval +0.125 to +0.375)."),
        (row(0.75, 0.5, -0.375, -0.125), "Worse", "fell from 0.750 to 0.500 (-0.250, 95 % interval -0.375 to -0.125)."),
        (row(0.5, 0.75, -0.125, 0.5), "No clear difference", "95 % interval -0.125 to +0.500): no clear difference."),
        (row(0.5, 0.75, None, None), "No clear difference", "(+0.250); there is no interval to judge that by."),
        (row(-1, 0.75, None, None), "", "Text to image recall@5 is 0.750."),
    ],
    ids=["better", "worse", "unclear", "without-interval", "alone"],
)
def test_the_verdict_follows_from_the_interval(result: EvaluationResult, headline: str, said: str) -> None:
    found, sentences = verdict(result)

    assert found == (f"{headline} in both directions" if headline else "")
    assert sentences[0].endswith(said)
    assert sentences[0].startswith("Text to image recall@5")


def test_the_verdict_can_differ_by_direction_and_goes_by_the_first_hit_on_few_pictures() -> None:
    result = row(0.5, 0.75, 0.125, 0.375, images=20)
    result.difference_low["image_to_text_recall@1"] = -0.125
    result.p_values["image_to_text_recall@1"] = 0.2

    headline, sentences = verdict(result)

    assert headline == "Better from text to image, no clear difference from image to text"
    assert sentences[1].startswith("Image to text recall@1 went from")
    assert verdict(result, trained=False)[1][0].startswith("Text to image recall@1 is 0.750, and 0.500 with the baseline")


def test_the_verdict_is_that_of_the_interval_only_if_the_p_value_agrees() -> None:
    result = row(0.5, 0.75, 0.125, 0.375)
    result.p_values |= {"text_to_image_recall@5": 0.06, "image_to_text_recall@5": 0.05}

    headline, sentences = verdict(result)

    assert headline == "No clear difference from text to image, better from image to text"
    assert sentences[0].endswith("95 % interval +0.125 to +0.375): no clear difference.")


def test_few_pictures_have_figures_and_no_verdict() -> None:
    headline, sentences = verdict(row(0.5, 0.75, 0.125, 0.375, images=19))

    assert headline == "Too few pictures to judge"
    assert sentences[0].startswith("Text to image recall@1 went from 0.500 to 0.750 (+0.250, 95 % interval")
    assert sentences[0].endswith("): too few pictures to judge.")


def test_a_figure_of_a_model_alone_is_told_with_its_interval() -> None:
    result = row(-1, 0.75, None, None)
    result.after_low["text_to_image_recall@5"], result.after_high["text_to_image_recall@5"] = 0.5, 0.875

    assert verdict(result) == (
        "",
        ["Text to image recall@5 is 0.750 (95 % interval 0.500 to 0.875).", "Image to text recall@5 is 0.750."],
    )


def test_the_command_gives_the_settings_of_the_run_again() -> None:
    chosen = {
        "model": "my models/clip", "train_data": "a-b", "eval_data": "c", "val_data": "d", "epochs": 3,
        "learning_rate": 1e-4, "seed": 7,
        "lock_text": True, "augmentation": "none", "retention_data": "12", "hard_negatives": 0.5,
    }  # fmt: skip
    run = FinetuningRun(settings=json.loads(FinetuningSettings(**chosen).model_dump_json()))
    run.training.device = "cpu"

    words = shlex.split(reproduce(run))

    assert words[:4] == ["python", "-m", "client", "fit"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    options = {
        "--model": "my models/clip",
        "--train-data": "a-b",
        "--eval-data": "c",
        "--val-data": "d",
        "--epochs": "3",
        "--learning-rate": "0.0001",
    }
    assert {name: value for name, value in given.items() if name != "--set"} == options
    sets = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    rest = ("seed", "lock_text", "augmentation", "retention_data", "hard_negatives")
    assert _parse_settings(sets, AttuneClient.fit) == {name: chosen[name] for name in rest}


def test_settings_that_differ_from_the_defaults_come_first_with_what_they_came_to() -> None:
    run = FinetuningRun(settings={"loss": "auto", "seed": 3, "model": "starter"})
    run.training.recipe = {"loss": "CLIPLoss", "warmup_steps": 20}

    assert setting_rows(run) == [
        ("seed", 3, 3, True),
        ("model", "starter", "starter", True),
        ("loss", "auto", "CLIPLoss", False),
        ("warmup_steps", None, 20, False),
    ]


def test_rows_stand_under_what_their_names_begin_with() -> None:
    names = ["text_to_image_mrr", "image_to_text_mrr", "zero_shot_acc1", "acc5"]

    found = by_direction([Row(metric=name) for name in names])

    assert [(heading, [label for label, _ in rows]) for heading, rows in found] == [
        ("text to image", ["mrr"]), ("image to text", ["mrr"]), ("zero shot", ["acc1"]), ("", ["acc5"]),
    ]  # fmt: skip


def test_values_are_written_for_people() -> None:
    assert [figure(value) for value in (0.12345, 1.0, 3, None, float("nan"))] == ["0.123", "1.000", "3", "–", "–"]
    assert [p_value(value) for value in (0.0004, 0.05, None)] == ["< 0.001", "0.050", "–"]
    found = [plain(value) for value in (True, None, 1e-5, ["a", 2], {"torch": "2.9", "numpy": None})]
    assert found == ["true", "–", "1e-05", "a, 2", "torch 2.9, numpy –"]
