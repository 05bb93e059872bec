from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from attune.errors import ServiceUnavailable
from client.batches import DOCUMENT_BYTES, batches, send_batches


@dataclass
class Picture:
    image: bytes


def pictures(*sizes: int) -> Iterator[Picture]:
    return (Picture(bytes(size)) for size in sizes)


def sizes(found: list[list[Picture]]) -> list[list[int]]:
    return [[len(picture.image) for picture in batch] for batch in found]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([1], [[1]]),
        ([1, 1, 1], [[1, 1], [1]]),  # two documents at most
        ([3, 3, 9], [[3, 3], [9]]),  # two with 6 bytes at most; a larger one goes alone
        ([9, 1], [[9], [1]]),
        ([4, 3, 3], [[4], [3, 3]]),
    ],
)
def test_batches_keep_to_both_limits(given: list[int], expected: list[list[int]]) -> None:
    assert sizes(list(batches(pictures(*given), max_documents=2, max_bytes=6 + 2 * DOCUMENT_BYTES))) == expected


def test_documents_are_read_as_they_are_needed() -> None:
    read = []

    def reading() -> Iterator[Picture]:
        for number in range(1000):
            read.append(number)
            yield Picture(b"")

    next(batches(reading(), max_documents=3))
    assert len(read) <= 4


def test_later_batch_is_sent_again_when_the_service_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.transport.RETRY_AFTER_SECONDS", (0.0, 0.0))
    calls = []

    def send(batch: list[Picture]) -> str:
        calls.append(len(batch))
        if len(calls) == 2:
            raise ServiceUnavailable
        return "kept"

    assert list(send_batches(pictures(1, 1, 1), 2, send)) == [(2, "kept"), (1, "kept")]
    assert calls == [2, 1, 1]


def test_first_batch_is_sent_once() -> None:
    calls = []

    def send(batch: list[Picture]) -> str:
        calls.append(len(batch))
        raise ServiceUnavailable

    with pytest.raises(ServiceUnavailable):
        list(send_batches(pictures(1), 2, send))
    assert calls == [1]
