"""Cells of Parquet tables that should hold texts: a text or a number is one, and all else is an error of its row."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attune.data.read import read_examples
from attune.data.validate import validate_examples
from attune.schemas import DatasetReport, TrainingExample
from tests.conftest import picture

RED = picture("red")

NO_TEXTS = {
    "bytes": (pa.array([b"a red circle"]), "bytes, b'a red circle', and no text"),
    "truth value": (pa.array([True]), "a truth value, True, and no text"),
    "struct": (pa.array([{"en": "a red circle"}]), "a struct, {'en': 'a red circle'}, and no text"),
    "date": (pa.array([date(2024, 1, 31)]), "a date, datetime.date(2024, 1, 31), and no text"),
    "list of numbers": (pa.array([[0.5, 1.0]]), "a list, [0.5, 1.0], and no text"),
    "list of lists": (pa.array([[["a"]]]), "a list, [['a']], and no text"),
}


def read(folder: Path, **columns: Any) -> list[TrainingExample]:
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return list(read_examples(folder / "data.parquet"))


@pytest.mark.parametrize(("cells", "said"), NO_TEXTS.values(), ids=NO_TEXTS)
def test_a_caption_that_is_no_text_is_an_error_of_its_row(tmp_path: Path, cells: pa.Array, said: str) -> None:
    good, problems = validate_examples(read(tmp_path, image=[RED], caption=cells))

    assert good == []
    [problem] = problems
    assert (problem.reason, problem.field) == ("empty_caption", "captions")
    assert problem.source == f"data.parquet, row 1 ('caption' holds {said}. Give a string)"


@pytest.mark.parametrize(
    ("cells", "said"),
    [*NO_TEXTS.values(), (pa.array([["one", "two"]]), "a list, ['one', 'two'], and no text")],
    ids=[*NO_TEXTS, "list"],
)
@pytest.mark.parametrize("more", [{"label": ["warm"]}, {"document": ["ten"]}], ids=["single", "pair"])
def test_a_text_that_is_none_is_an_error_of_its_row(
    tmp_path: Path, cells: pa.Array, said: str, more: dict[str, list[str]]
) -> None:
    good, problems = validate_examples(read(tmp_path, query=cells, **more))

    assert good == []
    [problem] = problems
    assert problem.source == f"data.parquet, row 1 ('query' holds {said}. Give a string)"


def test_a_negative_that_is_no_text_is_named_and_the_rest_of_its_row_is_kept(tmp_path: Path) -> None:
    examples = read(tmp_path, query=["how old?"], document=["ten"], negative=[b"eleven"])

    good, problems = validate_examples(examples)

    assert [(one.text, one.captions, one.negatives) for one in good] == [("how old?", ["ten"], [])]
    [problem] = problems
    assert problem.reason == "empty_negative"
    assert "('negative' holds bytes, b'eleven', and no text" in problem.source


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        (pa.array([1984, 0]), ["1984", "0"]),
        (pa.array([1.5, -2.0]), ["1.5", "-2.0"]),
        (pa.array([Decimal("1.50"), Decimal("7.00")]), ["1.50", "7.00"]),
        (pa.array(["True", "b'x'"]), ["True", "b'x'"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    ],
    ids=["whole-numbers", "numbers", "decimals", "strings-that-look-otherwise", "categories", "large-strings"],
)
def test_texts_and_numbers_are_texts_as_they_are_written(tmp_path: Path, cells: pa.Array, texts: list[str]) -> None:
    for examples in (read(tmp_path, text=cells, label=["x", "y"]), read(tmp_path, image=[RED, RED], text=cells)):
        assert [one.text or one.captions[0] for one in examples] == texts
        assert [one.source for one in examples] == ["data.parquet, row 1", "data.parquet, row 2"]


def test_a_cell_with_nothing_in_it_is_missing_and_not_wrong(tmp_path: Path) -> None:
    of_pictures = read(tmp_path, image=[RED, RED, RED], captions=[None, [], ["a", None]])
    of_texts = read(tmp_path, text=pa.array([None, float("nan")], pa.float64()), label=["x", "y"])

    assert [one.captions for one in of_pictures] == [[], [], ["a", ""]]
    assert [one.source for one in of_pictures] == [f"data.parquet, row {row}" for row in (1, 2, 3)]
    assert of_texts[0].source == "data.parquet, row 1 (the query is empty)"
    good, problems = validate_examples(of_texts)
    assert (good, [problem.field for problem in problems]) == ([], ["image", "text"])


def test_rows_that_are_good_are_pushed_beside_those_that_are_not(
    attune_home: Path, push: Callable[..., DatasetReport], tmp_path: Path
) -> None:
    cells = pa.array([["a red circle"], None, []], pa.list_(pa.string()))
    report = push("mixed", read(tmp_path, image=[RED] * 3, caption=cells))

    assert (report.images, report.rejected) == (1, 2)
