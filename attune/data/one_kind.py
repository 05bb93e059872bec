"""Whether the batches of a push make one dataset: what one of its examples has, all have.

A batch's report says how many of its examples have what; see `attune.data.uploads`.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

from attune.errors import DataError
from attune.schemas import DatasetReport


def check_one_kind(name: str, report: DatasetReport, reports: Collection[dict[str, Any]]) -> None:
    """Passes if a push holds items of one kind, and things of one kind that belong to them.

    Args:
        name: of the dataset.
        report: the counts of all batches together.
        reports: those of each batch.

    Raises:
        DataError: if both pictures and texts, or captions and pictures in their place, or embeddings and anything else are
            in it, or embeddings of several lengths; or if only some have captions, scores or margins.
    """
    one, several = ("an embedding", "embeddings") if report.dimension else ("a picture", "pictures")
    if report.images and report.texts:
        raise DataError(
            f"The push of {name!r} cannot be closed: it has examples with {one} ({report.images}) and with a text "
            f"({report.texts}), and a dataset holds the one or the other. Push them under two names"
        )
    if report.captions and report.matches:
        raise DataError(
            f"The push of {name!r} cannot be closed: it has examples with captions ({report.captions}) and with {several} "
            f"in their place ({report.matches}), and a dataset holds the one or the other. Push them under two names"
        )
    _refuse_lengths(name, reports, report.images)
    _refuse_half(name, reports, report)


def lengths(reports: Collection[dict[str, Any]]) -> Counter[int]:
    """How many items are embeddings, by their length."""
    found = Counter[int]()
    for fields in reports:
        found.update({int(length): count for length, count in fields.get("lengths", {}).items()})  # none in those of before
    return found


def _refuse_lengths(name: str, reports: Collection[dict[str, Any]], images: int) -> None:
    """Refuses embeddings of several lengths, and pictures beside embeddings."""
    counts = lengths(reports)
    if len(counts) > 1:
        said = ", ".join(f"{count} of {length} numbers" for length, count in counts.most_common(5))
        raise DataError(
            f"The push of {name!r} cannot be closed: it has embeddings of several lengths ({said}), and those of different "
            "models cannot be compared. Push them under a name each"
        )
    if counts and counts.total() < images:
        raise DataError(
            f"The push of {name!r} cannot be closed: it has examples with an embedding ({counts.total()}) and with a "
            f"picture ({images - counts.total()}), and a dataset holds the one or the other. Push them under two names"
        )


def _refuse_half(name: str, reports: Collection[dict[str, Any]], report: DatasetReport) -> None:
    """Refuses data of which some items have captions, some captions scores, or some negatives margins, and others none."""
    counts = Counter[str]()
    for fields in reports:
        counts.update(fields.get("lists", {}), single=fields.get("single", 0))  # batches of before have none
    if single := counts["single"] if report.belonging else 0:
        raise DataError(
            f"The push of {name!r} cannot be closed: {single} of its {report.items} {report.kind.items} have no "
            f"{report.kind.captions}, and all of a dataset have them, or none. Give them to all, or push those without "
            "under another name"
        )
    for numbers, of, count in (("scores", "captions", report.captions), ("margins", "negatives", counts["negatives"])):
        if 0 < counts[numbers] < count:
            raise DataError(
                f"The push of {name!r} cannot be closed: {counts[numbers]} of its {count} {of} have {numbers}, and all of a "
                "dataset have them, or none. Give them to all, or push the others under another name"
            )
    if counts["scores"] and counts["negatives"]:
        raise DataError(
            f"The push of {name!r} cannot be closed: it has examples with scores and others with negatives. Captions with "
            "scores are neither right nor wrong: give wrong ones low scores, or push the others under another name"
        )
