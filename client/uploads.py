"""A push: batches that the service does not have yet, and a commit that names all of them.

A batch is known by its content (`attune.data.keys`). So a push that was broken off goes on where it was, by whichever
process it is started again, and data that is there already is read but not sent.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attune.errors import DataError
from client.batches import numbered, send_batches
from client.events import RESTART_SECONDS
from client.transport import Transport, call_one, patiently

if TYPE_CHECKING:
    from attune.data.read import Source
    from attune.schemas import DatasetReport, Problem

TRIES = 3


def push_examples(
    transport: Transport,
    name: str,
    data: "Source",
    image_folder: str | Path | None,
    batch_size: int,
    on_batch: Callable[[int, int], None],
) -> "DatasetReport":
    """Sends examples as a dataset.

    Args:
        transport: the way to the service.
        name: of the dataset, and of the upload: who pushes under the name again goes on with it.
        data: what `attune.data.read.read_examples` takes.
        image_folder: as there.
        batch_size: examples in a batch, at most.
        on_batch: told how many examples a batch had, and how many of them were rejected.

    Returns:
        What the service has as the dataset now.

    Raises:
        DataError: if the data cannot be read, or nothing of it can be used.
    """
    from attune.data.read import read_examples
    from attune.schemas import DatasetReport

    tries = 1 if isinstance(data, Iterator) else TRIES  # what comes once only cannot be sent again
    while True:
        tries -= 1
        keys: list[str] = []
        examples = numbered(read_examples(data, image_folder))
        for count, report in send_batches(examples, batch_size, partial(_send, transport, name)):
            keys += report.batches
            on_batch(count, report.rejected)
        if not keys:
            raise DataError(f"There is nothing to push as {name!r}: the data holds no examples")
        closing = DatasetReport(name=name, upload=name, batches=keys)
        try:
            closed: DatasetReport = patiently(partial(call_one, transport, "/datasets/commit", [closing]), RESTART_SECONDS)
        except DataError:
            # Another push under this name may have taken batches along that were in both.
            there: DatasetReport = call_one(transport, "/datasets/uploaded", [closing])
            if not tries or set(keys) <= set(there.batches):
                raise
        else:
            return closed


def all_problems(transport: Transport, name: str) -> "Iterator[Problem]":
    """Every problem that was found in a dataset, page by page.

    Raises:
        DatasetNotFound: if nothing was pushed under the name.
    """
    from attune.schemas import DatasetReport

    after = 0
    while True:
        asked = DatasetReport(name=name, after=after)
        page: DatasetReport = patiently(partial(call_one, transport, "/datasets/get", [asked]))
        if not page.problems:
            return
        yield from page.problems
        after += len(page.problems)


def all_datasets(transport: Transport) -> "Iterator[DatasetReport]":
    """Every dataset of the service, by name."""
    from attune.schemas import DatasetReport

    after = ""
    while page := transport.call("/datasets/list", [DatasetReport(name=after)]):
        yield from page
        after = page[-1].name


def _send(transport: Transport, name: str, batch: Sequence[Any]) -> "DatasetReport":
    """What the service has of a batch; it is sent if that is nothing."""
    from attune.data.keys import batch_key
    from attune.schemas import DatasetReport

    asked = DatasetReport(name=name, upload=name, batches=[batch_key(batch)])
    report: DatasetReport = call_one(transport, "/datasets/uploaded", [asked])
    if not report.batches:
        report = call_one(transport, "/push", batch, {"name": name, "upload": name})
    return report
