from typing import Any

import pytest
from docarray import DocList

from attune.schemas import Artifact, DatasetReport, Document, FileChunk, FinetuningRun, RunQuery, StorageReport

LARGE = 7 * 2**40 + 1


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        (StorageReport(free=LARGE, quota=2**31), "free", LARGE),
        (StorageReport(free=LARGE, quota=2**31), "quota", 2**31),
        (FileChunk(offset=LARGE, total=2**31 - 1), "offset", LARGE),
        (FileChunk(offset=LARGE, total=2**31 - 1), "total", 2**31 - 1),
        (RunQuery(after=2**53), "after", 2**53),
        (DatasetReport(reasons={"empty_caption": 2**40, "too_long": 1}), "reasons", {"empty_caption": 2**40, "too_long": 1}),
        (FinetuningRun(artifact=Artifact(files={"w": LARGE})), "artifact", Artifact(files={"w": LARGE})),
        (FinetuningRun(settings={"seed": 2**40, "lock_image": True}), "settings", {"seed": 2**40, "lock_image": True}),
    ],
)
def test_large_integers_arrive_as_they_were_sent(document: Document, field: str, value: Any) -> None:
    kind = type(document)
    arrived = DocList[kind].from_protobuf(DocList[kind]([document]).to_protobuf())[0]
    if isinstance(value, Artifact):
        assert arrived.artifact.files == value.files
    else:
        assert getattr(arrived, field) == value
    assert not isinstance(getattr(arrived, field), float)
    assert getattr(document, field) == value or field == "artifact"
