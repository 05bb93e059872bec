"""Datasets on disk: content-addressed Parquet shards with a manifest, and names that point to them.

datasets/NAME.json                      the name's `DatasetReport`, with the fingerprint it points to
datasets/NAME.problems.jsonl            all problems that were found in what was pushed under the name
datasets/content/FINGERPRINT/           part-*.parquet, report-*.json and manifest.json, never changed once there;
                                        and pixels-*, a cache
datasets/uploads/UPLOAD/                batches of pushes that are under way: `attune.data.uploads`
datasets/.lock                          held while names and contents are changed
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attune.data.shards import find_parts, read_rows
from attune.errors import DataError, DatasetNotFound
from attune.files import locked, whole_file, write_text
from attune.home import home
from attune.names import check_name
from attune.runs.listing import listed_runs
from attune.schemas import END_STATES, DatasetReport, FinetuningRun, Problem

MAX_PROBLEMS = 1000
"""Problems in one answer; the counts by reason are of all."""
MAX_DATASETS = 1000
"""Datasets in one answer."""


def describe(name: str, after: int = 0) -> DatasetReport:
    """What the dataset of that name holds.

    Args:
        name: of the dataset.
        after: problems that were seen already; the report carries the next ones.

    Raises:
        DatasetNotFound: if nothing was pushed under the name.
    """
    report = read_pointer(name)
    if report is None:
        known = [path.stem for path in _pointers()]
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        raise DatasetNotFound(
            f"There is no dataset named {name!r}. Push data under that name first. "
            f"Datasets here: {', '.join(known[:20]) or 'none yet'}{more}"
        )
    problems = _problems_file(name)
    if problems.is_file():  # datasets of before have theirs in the report
        with problems.open(encoding="utf-8") as file:
            report.problems.extend(Problem(**json.loads(line)) for line in islice(file, after, after + MAX_PROBLEMS))
    return report


def list_datasets(after: str = "") -> list[DatasetReport]:
    """Reports of all datasets by name, without their problems, at most `MAX_DATASETS`.

    Args:
        after: the last name of the page before.
    """
    names = (path.stem for path in _pointers() if path.stem > after)
    found = (read_pointer(name) for name in islice(names, MAX_DATASETS))
    return [report.model_copy(update={"problems": report.problems[:0]}) for report in found if report is not None]


def delete(name: str) -> DatasetReport:
    """Forgets a name. Its content stays as long as another name or a run refers to it.

    Returns:
        What it was.

    Raises:
        DatasetNotFound: if there is none of that name.
        DataError: if a run that is not at an end uses it.
    """
    with changing_datasets():
        report = describe(name)
        for run in (one.folder.load() for one in listed_runs() if one.state not in END_STATES):
            if name in _datasets_of(run):
                raise DataError(
                    f"Dataset {name!r} is not deleted: the run {run.reference!r} is {run.state} and uses it. "
                    "Wait for its end, or cancel it"
                )
        _pointer(name).unlink()
        _problems_file(name).unlink(missing_ok=True)
    return report


def point(report: DatasetReport, commit: str, problems: Iterable[str]) -> None:
    """Lets the report's name point to its fingerprint. To be called within `changing_datasets`.

    Args:
        report: of the dataset.
        commit: what tells this commit from others of the same name; see `read_commit`.
        problems: each as a line of JSON.
    """
    with whole_file(_problems_file(report.name)) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in problems)
    fields = json.loads(report.model_dump_json(exclude={"problems", "batches", "after"}))
    write_text(_pointer(report.name), json.dumps({**fields, "commit": commit}, indent=2))


def read_pointer(name: str) -> DatasetReport | None:
    """The report of the name, if there is one."""
    try:
        text = _pointer(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    report: DatasetReport = DatasetReport.model_validate_json(text)
    return report


def read_commit(name: str) -> str:
    """Which commit the name's report is of; empty if there is none."""
    path = _pointer(name)
    return str(json.loads(path.read_text(encoding="utf-8")).get("commit", "")) if path.is_file() else ""


def changing_datasets() -> AbstractContextManager[None]:
    """Waits until no other process changes names or removes contents, and keeps them from it."""
    folder = home() / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    return locked(folder / ".lock")


def content_folder(fingerprint: str) -> Path:
    """Where the shards of a dataset are."""
    return home() / "datasets" / "content" / fingerprint


def read_index(fingerprint: str) -> pa.Table:
    """All rows without their pictures: see `attune.data.shards.read_rows`.

    Raises:
        DataError: if there is no such data, or not any more.
    """
    parts = find_parts(content_folder(fingerprint))
    if not parts:
        raise DataError(
            f"The data {fingerprint[:12]!r} is not there: its dataset was deleted, or never whole. Push it again"
        )
    return read_rows(parts)


def read_dimension(fingerprint: str) -> int:
    """How many numbers each has of a dataset's embeddings; 0 if it has none."""
    try:
        manifest = json.loads((content_folder(fingerprint) / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    return int(manifest.get("dimension", 0))


def iter_images(fingerprint: str, batch_size: int = 64) -> Iterator[list[tuple[str, bytes]]]:
    """Pictures, matches among them, as (SHA-256, encoded bytes), a batch at a time, so that memory stays bounded."""
    for part in find_parts(content_folder(fingerprint)):
        for batch in pq.ParquetFile(part).iter_batches(batch_size, columns=["image", "image_sha256"]):
            images = batch.column("image").field("bytes").to_pylist()
            yield list(zip(batch.column("image_sha256").to_pylist(), images, strict=True))


def plain(what: str, name: str) -> str:
    """The name itself.

    Args:
        what: it names, for the message.
        name: becomes a file's or a folder's name.

    Raises:
        DataError: if it cannot.
    """
    try:
        return check_name(name)
    except ValueError as error:
        raise DataError(f"{what} {name[:120]!r} {error}") from error


def _datasets_of(run: FinetuningRun) -> set[str]:
    """Names of the datasets that a run's settings name."""
    callbacks = run.settings.get("callbacks")
    parts = [run.settings, *(callbacks if isinstance(callbacks, list) else [])]
    fields = ("train_data", "eval_data", "val_data", "retention_data", "query_data", "index_data")
    return {str(part[field]) for part in parts if isinstance(part, dict) for field in fields if part.get(field)}


def _pointers() -> list[Path]:
    return sorted((home() / "datasets").glob("*.json"), key=lambda path: path.stem)


def _pointer(name: str) -> Path:
    return home() / "datasets" / f"{plain('Dataset name', name)}.json"


def _problems_file(name: str) -> Path:
    return _pointer(name).with_name(f"{name}.problems.jsonl")
