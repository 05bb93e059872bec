"""Datasets on disk: content-addressed Parquet shards with a manifest, and names that point to them.

    datasets/NAME.json                      the name's `DatasetReport`, with the fingerprint it points to
    datasets/content/FINGERPRINT/           part-*.parquet and manifest.json, never changed once there;
                                            and pixels-*, a cache
    datasets/uploads/UPLOAD/                batches of a push that is under way

The shards follow the Hugging Face image convention: `datasets.load_dataset("parquet", data_files=...)` shows pictures.
A batch's file is named by its content, so a batch that arrives twice is stored once.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attune.data.validate import validate_examples
from attune.errors import DataError, DatasetNotFound
from attune.files import whole_file, write_text
from attune.home import home
from attune.names import check_name
from attune.schemas import DatasetReport, Problem, TrainingExample

_FEATURES = {
    "image": {"_type": "Image"},
    "image_sha256": {"dtype": "string", "_type": "Value"},
    "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "group": {"dtype": "string", "_type": "Value"},
    "label": {"dtype": "string", "_type": "Value"},
    "tags": {"dtype": "string", "_type": "Value"},
    "source": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_sha256", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("group", pa.string()),
        ("label", pa.string()),
        ("tags", pa.string()),  # a JSON object: maps are not read well everywhere
        ("source", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)

CONTENT = ("image_sha256", "captions", "group", "label", "tags")
"""Columns that say what a row holds; where it came from is no part of that."""


def add_batch(name: str, upload: str, examples: Sequence[TrainingExample]) -> DatasetReport:
    """Checks a batch of examples and stores the good ones with the rest of their upload.

    Args:
        name: the dataset's name, for the report.
        upload: the push this batch belongs to.
        examples: the batch.

    Returns:
        What this batch added, with a `Problem` for everything that was set aside.
    """
    key = hashlib.sha256(b"".join(map(_example_digest, examples))).hexdigest()[:24]
    good, problems = validate_examples(examples)
    rows = [_row(example) for example in good]
    report = DatasetReport(
        name=name,
        upload=upload,
        images=len(rows),
        captions=sum(len(example.captions) for example in good),
        rejected=len(examples) - len(good),
    )
    report.problems.extend(problems)
    if examples:
        folder = _upload_folder(upload)
        with whole_file(folder / f"part-{key}.parquet") as draft:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), draft, compression="zstd")
        write_text(folder / f"report-{key}.json", report.model_dump_json())
    return report


def commit(name: str, upload: str) -> DatasetReport:
    """Closes an upload: its batches become the dataset that `name` points to.

    Asked again with the same upload, it returns the report again.

    Raises:
        DataError: if the name cannot be a folder's, or if no usable example arrived; the message then lists what was
            wrong with the first ones.
    """
    _plain("Dataset name", name)
    folder = _upload_folder(upload)
    if not folder.is_dir():
        report = _read_pointer(name)
        if report is not None and report.upload == upload:
            return report
        raise DataError(f"There is no upload {upload!r} to commit. Push the data again")
    batches = [DatasetReport.model_validate_json(path.read_text()) for path in sorted(folder.glob("report-*.json"))]
    problems = [problem for batch in batches for problem in batch.problems]
    parts = sorted(path.name for path in folder.glob("part-*.parquet"))
    table = _index_table(folder)
    if table.num_rows == 0:
        first = "".join(f"\n- {problem.source}: {problem.advice}" for problem in problems[:5])
        raise DataError(f"Nothing of dataset {name!r} can be used.{first}")
    report = DatasetReport(
        name=name,
        upload=upload,
        fingerprint=_fingerprint(table),
        images=pc.count_distinct(table["image_sha256"]).as_py(),
        captions=len(_captions(table)),
        groups=len(set(_groups(table))),
        rejected=sum(batch.rejected for batch in batches),
    )
    report.problems.extend(problems)
    content = content_folder(report.fingerprint)
    if not (content / "manifest.json").exists():
        # Links in a draft folder and one rename: a commit that is cut off and made again finds its upload whole.
        draft = content.with_name(f".{content.name}.{secrets.token_hex(4)}")
        draft.mkdir(parents=True)
        for part in parts:
            (draft / part).hardlink_to(folder / part)
        manifest = {key: getattr(report, key) for key in ("fingerprint", "images", "captions", "groups")}
        write_text(draft / "manifest.json", json.dumps({**manifest, "parts": parts}, indent=2))
        draft.rename(content)
    write_text(_pointer(name), report.model_dump_json(indent=2))
    shutil.rmtree(folder)
    return report


def describe(name: str) -> DatasetReport:
    """What the dataset of that name holds.

    Raises:
        DatasetNotFound: if nothing was pushed under the name.
    """
    report = _read_pointer(name)
    if report is None:
        known = sorted(path.stem for path in (home() / "datasets").glob("*.json"))
        raise DatasetNotFound(
            f"There is no dataset named {name!r}. Push it first: client.push({name!r}, data). "
            f"Datasets here: {', '.join(known) or 'none yet'}"
        )
    return report


def content_folder(fingerprint: str) -> Path:
    """Where the shards of a dataset are."""
    return home() / "datasets" / "content" / fingerprint


def read_index(fingerprint: str) -> pa.Table:
    """All rows without their pictures: columns image_sha256, captions, group, label, tags (JSON), source."""
    return _index_table(content_folder(fingerprint))


def iter_images(fingerprint: str, batch_size: int = 64) -> Iterator[list[tuple[str, bytes]]]:
    """Pictures as (SHA-256, encoded bytes), a batch at a time, so that memory stays bounded."""
    for part in sorted(content_folder(fingerprint).glob("part-*.parquet")):
        for batch in pq.ParquetFile(part).iter_batches(batch_size, columns=["image", "image_sha256"]):
            images = batch.column("image").field("bytes").to_pylist()
            yield list(zip(batch.column("image_sha256").to_pylist(), images, strict=True))


def _row(example: TrainingExample) -> dict[str, object]:
    digest = hashlib.sha256(example.image).hexdigest()
    return {
        "image": {"bytes": example.image, "path": None},
        "image_sha256": digest,
        "captions": example.captions,
        "group": example.group or digest,
        "label": example.label,
        "tags": json.dumps(example.tags, ensure_ascii=False, sort_keys=True),
        "source": example.source,
    }


def _example_digest(example: TrainingExample) -> bytes:
    texts = json.dumps([example.captions, example.group, example.label, example.tags, example.source], sort_keys=True)
    return hashlib.sha256(hashlib.sha256(example.image).digest() + texts.encode()).digest()


def _index_table(folder: Path) -> pa.Table:
    # With the schema given, a column that a part does not have is one of nulls: datasets of before have no label, no tags.
    columns = [name for name in SCHEMA.names if name != "image"]
    table = pq.read_table([str(part) for part in sorted(folder.glob("part-*.parquet"))], schema=SCHEMA, columns=columns)
    for name, empty in (("label", ""), ("tags", "{}")):
        table = table.set_column(table.column_names.index(name), name, pc.fill_null(table[name], empty))
    return table


def _fingerprint(table: pa.Table) -> str:
    """Independent of the order and the batches the rows came in. Where there is no label and no tag, neither counts."""
    rows = set()
    for *content, label, tags in zip(*(table[name].to_pylist() for name in CONTENT), strict=True):
        rows.add(json.dumps([*content, label, tags] if label or tags != "{}" else content))
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _captions(table: pa.Table) -> set[tuple[str, str]]:
    """Pictures with each of their captions; one that came twice is there once."""
    columns = (table[name].to_pylist() for name in ("image_sha256", "captions"))
    return {(image, text) for image, texts in zip(*columns, strict=True) for text in texts}


def _groups(table: pa.Table) -> list[str]:
    groups: list[str] = table["group"].to_pylist()
    return groups


def _upload_folder(upload: str) -> Path:
    return home() / "datasets" / "uploads" / _plain("Upload", upload)


def _pointer(name: str) -> Path:
    return home() / "datasets" / f"{_plain('Dataset name', name)}.json"


def _plain(what: str, name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise DataError(f"{what} {name!r} {error}") from error


def _read_pointer(name: str) -> DatasetReport | None:
    path = _pointer(name)
    return DatasetReport.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def problems_by_reason(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems there are of each reason."""
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.reason] = counts.get(problem.reason, 0) + 1
    return counts
