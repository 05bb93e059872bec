import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docarray import DocList

from attune.data.columns import find_columns
from attune.data.csv_rows import LONGEST_CELL
from attune.data.read import count_examples, read_examples
from attune.data.validate import validate_examples
from attune.errors import DataError
from attune.schemas import TrainingExample
from tests.conftest import picture

RED, BLUE = picture("red"), picture("blue")
BOTH = [(RED, ["a red circle", "red, round"]), (BLUE, ["a blue circle"])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with red.png and blue.png."""
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    return tmp_path


def content(examples: object) -> list[tuple[bytes, list[str]]]:
    return [(example.image, example.captions) for example in examples]


CSV_FORMS = {
    "header": 'image,caption\nred.png,a red circle\nred.png,"red, round"\nblue.png,a blue circle\n',
    "header-other-order": 'caption,image\na red circle,red.png\n"red, round",red.png\na blue circle,blue.png\n',
    "header-named-otherwise": 'file_name,text\nred.png,a red circle\nred.png,"red, round"\nblue.png,a blue circle\n',
    "more-columns": 'n,image,caption\n1,red.png,a red circle\n2,red.png,"red, round"\n3,blue.png,a blue circle',
    "headerless": 'red.png,a red circle\nred.png,"red, round"\nblue.png,a blue circle\n',
    "headerless-caption-first": 'a red circle,red.png\n"red, round",red.png\na blue circle,blue.png\n',
    "unquoted-commas": "image,caption\nred.png,a red circle\nred.png,red, round\nblue.png,a blue circle\n",
    "unquoted-commas-headerless": "red.png,a red circle\nred.png,red, round\nblue.png,a blue circle\n",
    "tabs": "image\tcaption\nred.png\ta red circle\nred.png\tred, round\nblue.png\ta blue circle\n",
    "byte-order-mark": '\ufeffimage,caption\nred.png,a red circle\nred.png,"red, round"\nblue.png,a blue circle\n',
    "windows-lines": 'image,caption\r\nred.png,a red circle\r\nred.png,"red, round"\r\nblue.png,a blue circle\r\n',
    "blank-lines": 'image,caption\n\nred.png, a red circle \n  \nred.png,"red, round"\nblue.png,a blue circle',
    "picture-comes-again-later": "image,caption\nred.png,a red circle\nblue.png,a blue circle\nred.png,red, round\n",
}


@pytest.mark.parametrize("text", CSV_FORMS.values(), ids=CSV_FORMS.keys())
def test_reads_a_csv_with_one_example_a_picture(folder: Path, text: str) -> None:
    (folder / "data.csv").write_text(text, encoding="utf-8", newline="")

    assert content(read_examples(folder / "data.csv")) == BOTH
    assert count_examples(folder / "data.csv") == 2


@pytest.mark.parametrize("images", ["Images", "images", "."])
def test_reads_a_folder_in_the_layout_of_kaggles_flickr8k(tmp_path: Path, images: str) -> None:
    (tmp_path / images).mkdir(exist_ok=True)
    (tmp_path / images / "red.png").write_bytes(RED)
    (tmp_path / images / "blue.png").write_bytes(BLUE)
    (tmp_path / "captions.txt").write_text(CSV_FORMS["unquoted-commas"])

    assert content(read_examples(str(tmp_path))) == BOTH
    assert count_examples(str(tmp_path)) == 2


def known_of(examples: object) -> list[tuple[str, str, dict[str, str]]]:
    return [(example.group, example.label, example.tags) for example in examples]


@pytest.mark.parametrize("label", ["label", "class", "category", "Label"])
def test_named_columns_of_a_csv_are_group_label_and_tags(folder: Path, label: str) -> None:
    (folder / "data.csv").write_text(
        f",image,caption,{label},Group,Taken In,stars\n0,red.png,a red circle,warm,round, Spain ,5\n1,blue.png,blue,,,,\n"
    )

    examples = list(read_examples(folder / "data.csv"))

    assert known_of(examples) == [("round", "warm", {"Taken In": "Spain", "stars": "5"}), ("", "", {})]
    assert content(examples) == [(RED, ["a red circle"]), (BLUE, ["blue"])]


def test_of_two_label_columns_one_is_a_tag(folder: Path) -> None:
    (folder / "data.csv").write_text("image,caption,category,label\nred.png,a red circle,shapes,circle\n")

    assert known_of(read_examples(folder / "data.csv")) == [("", "circle", {"category": "shapes"})]


def test_where_rows_of_a_picture_differ_the_first_counts_that_says_anything(folder: Path) -> None:
    (folder / "data.csv").write_text(
        "image,caption,label,group,by\nred.png,one,,,Ann\nblue.png,two,cold,,\nred.png,three,warm,a,Ben\nred.png,four,hot,b,\n"
    )

    red, blue = read_examples(folder / "data.csv")

    assert (red.captions, red.label, red.group, red.tags) == (["one", "three", "four"], "warm", "a", {"by": "Ann"})
    assert (blue.captions, blue.label, blue.group, blue.tags) == (["two"], "cold", "", {})


def test_unquoted_commas_of_a_caption_do_not_shift_what_comes_after_it(folder: Path) -> None:
    (folder / "data.csv").write_text("image,caption,label\nred.png,a circle, red, round,warm\nblue.png,blue,cold\n")

    red, blue = read_examples(folder / "data.csv")

    assert (red.captions, red.label) == (["a circle, red, round"], "warm")
    assert (blue.captions, blue.label) == (["blue"], "cold")


def test_a_csv_without_a_header_has_no_label(folder: Path) -> None:
    (folder / "data.csv").write_text("red.png,a red circle\nblue.png,a blue circle\n")

    assert known_of(read_examples(folder / "data.csv")) == [("", "", {})] * 2


def test_image_folder_says_where_relative_paths_start(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "data.csv"
    path.write_text(CSV_FORMS["header"])

    assert content(read_examples(path, image_folder=folder)) == BOTH
    assert [image for image, _ in content(read_examples(path))] == [b"", b""]


def test_an_absolute_path_needs_no_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "data.csv"
    path.write_text(f"image,caption\n{folder / 'red.png'},a red circle\n")

    assert content(read_examples(path)) == [(RED, ["a red circle"])]


def test_a_missing_picture_is_reported_with_its_example(folder: Path) -> None:
    (folder / "data.csv").write_text("image,caption\nred.png,a red circle\nabsent.png,what is not there\n")

    red, absent = read_examples(folder / "data.csv")

    assert red.source == "data.csv, line 2"
    assert (absent.image, absent.captions) == (b"", ["what is not there"])
    assert absent.source == f"data.csv, line 3 ({folder / 'absent.png'}: no such file)"


def test_a_row_without_a_picture_or_without_a_caption_is_still_an_example(folder: Path) -> None:
    (folder / "data.csv").write_text("image,caption\n,of nothing\nred.png\nblue.png,\n")

    assert content(read_examples(folder / "data.csv")) == [(b"", ["of nothing"]), (RED, [""]), (BLUE, [""])]


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"], ids=["nothing", "blank-lines", "byte-order-mark"])
def test_an_empty_csv_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.csv").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=r"data\.csv' is empty\. Give lines `image,caption`"):
        list(read_examples(tmp_path / "data.csv"))


def test_a_csv_with_only_a_header_has_no_examples(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("image,caption\n")

    assert list(read_examples(tmp_path / "data.csv")) == []
    assert count_examples(tmp_path / "data.csv") == 0


@pytest.mark.parametrize("text", ["name,age\nAnn,3\n", "red.png\nblue.png\n"], ids=["other-columns", "one-column"])
def test_a_csv_with_other_columns_is_refused(folder: Path, text: str) -> None:
    (folder / "data.csv").write_text(text)

    with pytest.raises(DataError, match="neither a header `image,caption` nor a row with an image path"):
        list(read_examples(folder / "data.csv"))


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "DATA.NDJSON"])
def test_a_file_of_json_is_not_taken_for_a_csv_of_texts(tmp_path: Path, name: str) -> None:
    lines = [{"query": f"how {what} is it?", "document": "It is written here."} for what in ("old", "far")]
    (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))

    with pytest.raises(DataError, match="is a file of JSON, and those are not read"):
        read_examples(tmp_path / name)


def test_a_csv_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "data.csv").write_bytes("image,caption\nred.png,un café\n".encode("latin-1"))

    with pytest.raises(DataError, match="UTF-8"):
        list(read_examples(folder / "data.csv"))


def hugging_face(folder: Path) -> pa.Table:
    del folder
    images = [{"bytes": RED, "path": None}, {"bytes": BLUE, "path": "blue.png"}]
    return pa.table({"image": images, "captions": [texts for _, texts in BOTH]})


def hugging_face_by_path(folder: Path) -> pa.Table:
    images = [{"bytes": None, "path": "red.png"}, {"bytes": None, "path": str(folder / "blue.png")}]
    return pa.table({"image": images, "captions": [texts for _, texts in BOTH]})


def plain_bytes(folder: Path) -> pa.Table:
    del folder
    return pa.table({"Text": [texts for _, texts in BOTH], "Image": [RED, BLUE]})


def paths(folder: Path) -> pa.Table:
    del folder
    return pa.table({"file_name": ["red.png", "blue.png"], "captions": [texts for _, texts in BOTH]})


@pytest.mark.parametrize("make", [hugging_face, hugging_face_by_path, plain_bytes, paths])
def test_reads_parquet_with_every_kind_of_picture(folder: Path, make: Callable[[Path], pa.Table]) -> None:
    pq.write_table(make(folder), folder / "data.parquet")

    assert content(read_examples(folder / "data.parquet")) == BOTH
    assert count_examples(folder / "data.parquet") == 2


def test_reads_one_caption_a_row_and_groups_from_parquet(folder: Path) -> None:
    table = pa.table({"image": [RED, BLUE], "caption": ["a red circle", None], "group": ["warm", None]})
    pq.write_table(table, folder / "data.parquet")

    red, blue = read_examples(folder / "data.parquet")

    assert (red.captions, red.group, red.source) == (["a red circle"], "warm", "data.parquet, row 1")
    assert (blue.captions, blue.group, blue.source) == ([], "", "data.parquet, row 2")


def test_plain_columns_of_parquet_are_label_and_tags(folder: Path) -> None:
    columns = {
        "image": [RED, BLUE],
        "caption": ["a red circle", "a blue circle"],
        "category": pa.array(["warm", None]).dictionary_encode(),
        "Stars": [5, None],
        "price": [1.5, 2.0],
        "sold": [True, False],
        "vector": [[0.1, 0.2], [0.3, 0.4]],
        "raw": [b"1", b"2"],
    }
    pq.write_table(pa.table(columns), folder / "data.parquet")

    assert known_of(read_examples(folder / "data.parquet")) == [
        ("", "warm", {"Stars": "5", "price": "1.5", "sold": "True"}),
        ("", "", {"price": "2", "sold": "False"}),
    ]


def test_a_hugging_face_class_is_read_by_its_name(folder: Path) -> None:
    classes = {"_type": "ClassLabel", "names": ["circle", "square"]}
    features = {"image": {"_type": "Image"}, "label": classes, "shade": classes, "n": {"dtype": "int64", "_type": "Value"}}
    table = pa.table(
        {"image": [RED] * 4, "text": ["a"] * 4, "label": [1, 0, -1, None], "shade": [0, 1, -1, 7], "n": [0, 1, -1, None]}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "data.parquet")

    assert known_of(read_examples(folder / "data.parquet")) == [
        ("", "square", {"shade": "circle", "n": "0"}),
        ("", "circle", {"shade": "square", "n": "1"}),
        ("", "", {"n": "-1"}),  # -1 is no class
        ("", "", {"shade": "7"}),
    ]


WHOLE: list[tuple[pa.Array, list[str]]] = [
    (pa.array([1.0, 1.5, None]), ["1", "1.5", ""]),
    (pa.array([-0.0, 0.0, float("nan")]), ["0", "0", ""]),
    (pa.array([1e300, float("inf"), -2.0], pa.float64()), ["1e+300", "inf", "-2"]),
    (pa.array([1, 2, None], pa.float32()), ["1", "2", ""]),
    (pa.array([Decimal("1.00"), Decimal("1.25"), None]), ["1", "1.25", ""]),
    (pa.array(["1.0", "nan", None]), ["1.0", "nan", ""]),
    (pa.nulls(3), ["", "", ""]),
]


@pytest.mark.parametrize("column", ["label", "group", "lens"])
@pytest.mark.parametrize(("cells", "said"), WHOLE, ids=[str(cells.type) + str(cells[0]) for cells, _ in WHOLE])
def test_a_whole_number_is_the_same_name_in_a_column_of_floats(
    folder: Path, column: str, cells: pa.Array, said: list[str]
) -> None:
    pq.write_table(pa.table({"image": [RED] * 3, "text": ["a", "b", "c"], column: cells}), folder / "data.parquet")

    examples = list(read_examples(folder / "data.parquet"))

    assert [getattr(one, column, one.tags.get("lens", "")) for one in examples] == said


@pytest.mark.parametrize("cells", [[["a"], ["a"]], [{"of": "a"}] * 2, [b"a", b"a"]], ids=["list", "struct", "bytes"])
@pytest.mark.parametrize(
    "columns",
    [{"image": [RED, BLUE], "text": ["a", "b"], "Group": None}, {"text": ["a", "b"], "label": None}],
    ids=["group", "label"],
)
def test_a_group_or_a_needed_label_of_another_type_is_an_error_that_says_so(
    folder: Path, columns: dict[str, Any], cells: list[Any]
) -> None:
    name = next(name for name, column in columns.items() if column is None)
    pq.write_table(pa.table({**columns, name: cells}), folder / "data.parquet")

    with pytest.raises(
        DataError, match=rf"data.parquet': the column '{name}' holds (list|struct|binary).* is a text, a number"
    ):
        list(read_examples(folder / "data.parquet"))


def test_a_cell_that_is_far_too_long_is_an_error_of_its_line(folder: Path) -> None:
    (folder / "data.csv").write_text(f"text,label\nred,warm\n{'x' * 200_000},warm\nblue,cold\n")

    good, problems = validate_examples(read_examples(folder / "data.csv"))

    assert [one.text for one in good] == ["red", "blue"]
    assert [(problem.source, problem.reason) for problem in problems] == [("data.csv, line 3", "long_text")]


def test_a_cell_that_is_longer_than_any_that_is_read_is_an_error_with_its_line(folder: Path) -> None:
    (folder / "data.csv").write_text(f'text,label\nred,warm\n"{"x" * (LONGEST_CELL + 1)}')

    with pytest.raises(
        DataError, match=r"cannot be read at line 3 .*a quote that is never closed, or a cell of more than 1,04"
    ):
        list(read_examples(folder / "data.csv"))


def test_a_label_column_of_lists_is_left_out(folder: Path) -> None:
    pq.write_table(pa.table({"image": [RED], "text": ["a"], "label": [["a", "b"]]}), folder / "data.parquet")

    assert known_of(read_examples(folder / "data.parquet")) == [("", "", {})]


def test_reads_all_parquet_files_of_a_folder_in_order(folder: Path) -> None:
    for number, (image, captions) in enumerate(BOTH):
        pq.write_table(pa.table({"image": [image], "captions": [captions]}), folder / f"part-{number}.parquet")

    assert content(read_examples(folder)) == BOTH
    assert count_examples(folder) == 2


def test_a_path_that_does_not_exist_in_parquet_gives_an_example_without_a_picture(folder: Path) -> None:
    pq.write_table(pa.table({"image": ["absent.png", None], "caption": ["a", "b"]}), folder / "data.parquet")

    assert content(read_examples(folder / "data.parquet")) == [(b"", ["a"]), (b"", ["b"])]


def test_parquet_without_the_columns_is_refused(folder: Path) -> None:
    pq.write_table(pa.table({"picture": [RED], "label": [1]}), folder / "data.parquet")

    with pytest.raises(DataError, match=r"has the columns picture, label\. An image column"):
        list(read_examples(folder / "data.parquet"))


def test_a_file_that_is_no_parquet_is_refused(folder: Path) -> None:
    (folder / "data.parquet").write_bytes(b"not parquet at all")

    with pytest.raises(DataError, match=r"data\.parquet"):
        list(read_examples(folder / "data.parquet"))


@pytest.mark.parametrize("kind", [list, DocList[TrainingExample], iter], ids=["list", "DocList", "generator"])
def test_takes_examples_as_they_are(kind: Callable[[list[TrainingExample]], object]) -> None:
    examples = [TrainingExample(image=image, captions=captions) for image, captions in BOTH]

    source = kind(examples)

    assert count_examples(source) == (None if kind is iter else 2)
    assert content(read_examples(source)) == BOTH


def test_a_folder_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no captions\.txt, captions\.csv or \*\.parquet"):
        read_examples(tmp_path)


def test_a_path_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match=r"There is no file or folder '/not/here\.csv'"):
        read_examples("/not/here.csv")


def test_columns_that_could_hold_the_picture_or_text_and_long_cells_are_no_tags() -> None:
    names = ["image", "caption", "title", "path", "camera", "url"]
    columns = find_columns(names, names)

    assert columns is not None
    assert columns.tags == {"camera": 4, "url": 5}
    assert columns.tags_in({4: "X100", 5: "u" * 201}) == {"camera": "X100"}


@pytest.mark.parametrize("rows", [50, 400], ids=["many-row-groups", "one-row-group"])
def test_a_large_parquet_file_is_never_in_memory_as_a_whole(rows: int, tmp_path: Path) -> None:
    images = [os.urandom(200_000) for _ in range(400)]
    table = pa.table({"image": images, "caption": [f"picture {number}" for number in range(400)]})
    pq.write_table(table, tmp_path / "large.parquet", compression="none", row_group_size=rows, write_batch_size=10)
    del table, images
    before, most = pa.total_allocated_bytes(), 0

    for _ in read_examples(tmp_path / "large.parquet"):
        most = max(most, pa.total_allocated_bytes() - before)

    assert 0 < most < 40 * 2**20  # of 80 MB


@pytest.mark.parametrize(
    "names",
    [
        ["query", "document", "embedding", "embedding2"],
        ["question", "answer", "embedding", "embeddings"],
        ["sentence1", "sentence2", "embedding", "match"],
    ],
)
def test_texts_are_pairs_whatever_embeddings_of_them_stand_beside(names: list[str]) -> None:
    columns = find_columns(names, names[:2])

    assert columns is not None
    assert (columns.item, columns.caption, columns.of_texts, columns.of_matches) == (0, 1, True, False)
