"""Pushes on their way to becoming datasets.

    datasets/uploads/UPLOAD/part-KEY.parquet    the good examples of a batch
                            report-KEY.json     what it holds, and its problems; written last: with it the batch is there
                            .commit-*/          a commit at work

A batch's key says all that it holds (`attune.data.keys`), so a batch that arrives twice is stored once, and one that is in
some dataset already is linked instead of sent; but not one that another version of Attune checked, nor one with pictures
that the service read itself, by address: there may be others now. A commit names the batches that are to be the dataset;
what else lies in the upload, of another push or one that was given up, is no part of it. It works on links of its own, so
nothing that is done meanwhile changes what it sees, and it can be cut off anywhere and asked again.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attune
from attune.data import store
from attune.data.contradictions import REASON, contradictions
from attune.data.embeddings import dimension_of
from attune.data.fingerprint import summarize
from attune.data.keys import batch_key
from attune.data.one_kind import check_one_kind, lengths
from attune.data.shards import LISTS, find_parts, write_part
from attune.data.validate import addresses, validate_examples
from attune.errors import DataError
from attune.files import disk_may_fill, whole_file, write_text
from attune.home import home
from attune.schemas import DatasetReport, Problem, TrainingExample
from attune.service.storage import check_room

_KEY = re.compile("[0-9a-f]{64}")


CHECKS = 2
"""Raised with every change of what is accepted: batches that were checked otherwise are checked anew."""


def add_batch(name: str, upload: str, examples: Sequence[TrainingExample]) -> DatasetReport:
    """Checks a batch of examples and stores the good ones with the rest of their upload.

    Args:
        name: the dataset's name, for the report.
        upload: the push this batch belongs to.
        examples: the batch.

    Returns:
        What this batch added, its key in `batches`, and a `Problem` for everything that was set aside.

    Raises:
        StorageFull: if there is no room for it.
    """
    folder, key = upload_folder(upload), batch_key(examples)
    fields = _read_report(folder, key)
    if fields is None or not _is_good_again(fields):
        good, problems = validate_examples(examples)
        fields = {
            "version": "" if any(map(addresses, examples)) else _checks(),
            "images": sum(bool(example.image) for example in good),
            "texts": sum(bool(example.text) for example in good),
            "captions": sum(len(example.captions) for example in good),
            "matches": sum(len(example.images) for example in good),
            # How many items are embeddings, by their length.
            "lengths": dict(Counter(str(length) for example in good if (length := dimension_of(example.image)))),
            # What there is besides captions, counted so that a dataset has it whole or not at all.
            "lists": {name: sum(len(getattr(example, name)) for example in good) for name in LISTS},
            "single": sum(not example.captions and not example.images for example in good),
            "rejected": len(examples) - len(good),
            "reasons": problems_by_reason(problems),
            "problems": [problem.model_dump(exclude={"id"}) for problem in problems],
        }
        with disk_may_fill(f"the push of {name!r}"):
            pictures = {image for example in good for image in (example.image, *example.images)}
            size = sum(map(len, pictures)) + sum(len(example.text) for example in good)
            check_room(size, f"The push of {name!r}", taken=True)
            with whole_file(_part_file(folder, key)) as draft:
                write_part(draft, good)
            write_text(_report_file(folder, key), json.dumps(fields))
    report = _sum(name, upload, [key], [fields])
    report.problems.extend(Problem(**problem) for problem in fields["problems"][: store.MAX_PROBLEMS])
    return report


def uploaded(name: str, upload: str, keys: Sequence[str]) -> DatasetReport:
    """Which of these batches need not be sent (again), with their counts.

    Those that are in some dataset already become part of the upload.
    """
    folder = upload_folder(upload)
    found = {key: _read_report(folder, key) for key in _checked(keys) if _take(key, folder, folder)}
    there = {key: fields for key, fields in found.items() if fields is not None and _is_good_again(fields)}
    if there:
        os.utime(folder)  # somebody goes on with it
    return _sum(name, upload, list(there), there.values())


def commit(name: str, upload: str, keys: Sequence[str]) -> DatasetReport:
    """Closes a push: these batches become the dataset that `name` points to.

    Asked again, it returns the report again.

    Args:
        name: of the dataset.
        upload: that the batches were sent to.
        keys: of all batches that are to be the dataset.

    Raises:
        DataError: if the name cannot be a folder's, if batches are not there, if both pictures and texts, or captions and
            pictures in their place, or embeddings and anything else are in them, or embeddings of several lengths, or if no
            usable example is; the message then lists what was wrong with the first ones.
        StorageFull: if there is no room.
    """
    folder, keys = upload_folder(upload), _checked(keys)
    with disk_may_fill(f"the push of {name!r}"):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".commit-", dir=folder) as temporary:
            _close(name, upload, keys, Path(temporary))
    _discard(folder, keys)
    return store.describe(name)


def _close(name: str, upload: str, keys: Sequence[str], temporary: Path) -> None:
    """Makes the dataset in a temporary folder, moves it to its place and lets the name point to it."""
    draft = temporary / "content"
    draft.mkdir()  # with plain permissions, which the temporary folder does not have
    commit_key = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
    missing = [key for key in keys if not _take(key, draft, upload_folder(upload))]
    if missing and store.read_commit(name) == commit_key:
        return  # it was closed before
    if missing or not keys:
        raise DataError(
            f"The push of {name!r} cannot be closed: {len(missing)} of its {len(keys)} batches are not there "
            f"({', '.join(missing[:3]) or 'none was named'}). Push the data again: what is there is not sent twice"
        )
    reports = list(_reports(draft, keys))
    report = _sum(name, upload, [], reports)
    if not report.items:
        raise _nothing(name, _problems(draft, keys))
    check_one_kind(name, report, reports)
    parts = find_parts(draft)
    found = summarize(parts)._asdict()
    count, pictures, aside = (found.pop(number) for number in ("items", "pictures", "contradictory"))
    item = report.kind.item if aside else ""
    if not count:
        raise _nothing(name, _problems(draft, keys, item))
    found |= {"images": 0 if report.texts else count, "texts": count if report.texts else 0}
    known = {"rejected": report.rejected + aside, "reasons": report.reasons | ({REASON: aside} if aside else {})}
    report = report.model_copy(update={**found, **known, "merged": report.items - aside - count})
    manifest = {**found, "pictures": 0 if report.texts else pictures or count, "dimension": report.dimension}
    manifest["parts"] = [part.name for part in parts]
    write_text(draft / "manifest.json", json.dumps(manifest, indent=2))
    with store.changing_datasets():
        content = store.content_folder(report.fingerprint)
        if not (content / "manifest.json").exists():
            content.parent.mkdir(exist_ok=True)
            draft.rename(content)
            draft = content
        store.point(report, commit_key, map(json.dumps, _problems(draft, keys, item)))


def _nothing(name: str, problems: Iterable[dict[str, str]]) -> DataError:
    first = [f"\n- {problem['source']}: {problem['advice']}" for problem in islice(problems, 5)]
    return DataError(f"Nothing of dataset {name!r} can be used.{''.join(first)}")


def upload_folder(upload: str) -> Path:
    """Where the batches of an upload are."""
    return home() / "datasets" / "uploads" / store.plain("Upload", upload)


def problems_by_reason(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems there are of each reason."""
    return dict(Counter(problem.reason for problem in problems))


def _part_file(folder: Path, key: str) -> Path:
    return folder / f"part-{key}.parquet"


def _report_file(folder: Path, key: str) -> Path:
    return folder / f"report-{key}.json"


def _checked(keys: Sequence[str]) -> list[str]:
    """The keys, each once; none of them is anything else that could be part of a path."""
    for key in keys:
        if not _KEY.fullmatch(key):
            raise DataError(f"{key[:100]!r} is no key of a batch: those are 64 hexadecimal digits")
    return list(dict.fromkeys(keys))


def _take(key: str, into: Path, upload: Path) -> bool:
    """Links a batch into a folder, from the upload or else from any dataset; whether it is there now."""
    for source in (upload, *_datasets_with(key)):
        try:
            into.mkdir(parents=True, exist_ok=True)
            for file in (_part_file, _report_file):
                with suppress(FileExistsError):
                    file(into, key).hardlink_to(file(source, key))
            return True
        except FileNotFoundError:  # not there, or just removed
            continue
    return False


def _datasets_with(key: str) -> Iterator[Path]:
    """Folders of datasets of which the batch is a part, as it would be if it was sent now."""
    for report in (home() / "datasets" / "content").glob(f"*/{_report_file(Path(), key)}"):
        fields = _read_report(report.parent, key)
        if fields is not None and _is_good_again(fields):
            yield report.parent


def _is_good_again(fields: dict[str, Any]) -> bool:
    """Whether the same examples would give the same again."""
    return bool(fields["version"] == _checks())


def _checks() -> str:
    """What examples are checked by: the version, and a number that counts changes of the checks within it."""
    return f"{attune.__version__} checks {CHECKS}"


def _discard(folder: Path, keys: Sequence[str]) -> None:
    for key in keys:
        _report_file(folder, key).unlink(missing_ok=True)  # first: without it the other counts for nothing
        _part_file(folder, key).unlink(missing_ok=True)
    with suppress(OSError):  # batches of another push are left
        folder.rmdir()


def _read_report(folder: Path, key: str) -> dict[str, Any] | None:
    """What a batch holds; None if it is not there."""
    try:
        fields: dict[str, Any] = json.loads(_report_file(folder, key).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return fields


def _reports(folder: Path, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    return (json.loads(_report_file(folder, key).read_text(encoding="utf-8")) for key in keys)


def _problems(folder: Path, keys: Sequence[str], item: str = "") -> Iterator[dict[str, str]]:
    """All problems of these batches; with what an item is called, those of labels that contradict each other as well."""
    for report in _reports(folder, keys):
        yield from report["problems"]
    if item:
        parts = [_part_file(folder, key) for key in keys]
        yield from (problem.model_dump(exclude={"id"}) for problem in contradictions(parts, item))


def _sum(name: str, upload: str, keys: list[str], reports: Collection[dict[str, Any]]) -> DatasetReport:
    """The counts of batches together."""
    total, reasons = Counter[str](images=0), Counter[str]()
    dimension = max(lengths(reports), default=0)
    for fields in reports:
        total.update({count: fields.get(count, 0) for count in ("images", "texts", "captions", "matches", "rejected")})
        reasons.update(fields["reasons"])
    return DatasetReport(name=name, upload=upload, batches=keys, reasons=dict(reasons), dimension=dimension, **total)
