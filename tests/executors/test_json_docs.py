"""Documents as the gateway's HTTP side reads and writes them."""

import base64
import json

import pytest
from pydantic import ValidationError

from attune.schemas import ENDPOINTS, DatasetReport, Problem, TrainingExample
from executors.gateway.json_docs import from_json, json_model, to_json


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_endpoints_documents_survive_json(path: str) -> None:
    for kind in (ENDPOINTS[path].takes, ENDPOINTS[path].gives):
        document = kind()
        body = json_model(kind).model_validate(json.loads(json.dumps(to_json(document))))
        assert to_json(from_json(kind, body)) == to_json(document)


def test_bytes_travel_as_base64() -> None:
    data = bytes(range(256))
    written = to_json(TrainingExample(image=data))
    assert written["image"] == base64.b64encode(data).decode()
    body = json_model(TrainingExample).model_validate(written)
    assert from_json(TrainingExample, body).image == data


def test_several_pictures_travel_as_base64() -> None:
    example = TrainingExample(image=b"x", images=[bytes(range(256)), b"y"], uris=["https://x.org/1.png"])
    written = json.loads(json.dumps(to_json(example)))
    assert written["images"][1] == base64.b64encode(b"y").decode()
    body = json_model(TrainingExample).model_validate(written)
    assert to_json(from_json(TrainingExample, body)) == to_json(example)
    with pytest.raises(ValidationError, match="images"):
        json_model(TrainingExample).model_validate({"images": ["cut off in the midd"]})


def test_nested_documents_are_written_out() -> None:
    report = DatasetReport(name="x")
    report.problems.append(Problem(reason="empty_caption"))
    assert to_json(report)["problems"][0]["reason"] == "empty_caption"


def test_labels_and_tags_pass_as_text() -> None:
    example = TrainingExample(image=b"x", captions=["a"], label="12", tags={"stars": "5", "größe": "klein"})
    body = json_model(TrainingExample).model_validate(json.loads(json.dumps(to_json(example))))
    assert to_json(from_json(TrainingExample, body)) == to_json(example)
    assert from_json(TrainingExample, json_model(TrainingExample)()).tags == {}
    with pytest.raises(ValidationError, match="tags"):
        json_model(TrainingExample).model_validate({"tags": {"stars": ["5"]}})


def test_text_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValidationError, match="image"):
        json_model(TrainingExample).model_validate({"image": "cut off in the midd"})
