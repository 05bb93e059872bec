import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from docarray import DocList
from jina import Client, Executor
from jina.excepts import BadServer
from PIL import Image

from attune.schemas import SearchDocument
from executors.encoder.executor import Encoder
from executors.indexer.executor import Indexer
from flows.background import Service, running


@pytest.fixture(scope="module")
def service(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`flows/search.yml`, running in processes of its own, as a user starts it."""
    home = tmp_path_factory.mktemp("home")
    settings = {"ATTUNE_ARTIFACT": str(tiny_model), "ATTUNE_INDEX": "colours"}
    with running(Path("flows/search.yml"), home, home / "flow.log", **settings) as started:
        yield started


@pytest.fixture(scope="module")
def ports(service: Service) -> tuple[int, int]:
    """Its gRPC and HTTP ports."""
    return service.port, service.port + 1


@pytest.fixture
def client(ports: tuple[int, int]) -> Client:
    return Client(host="grpc://127.0.0.1", port=ports[0])


def post(client: Client, endpoint: str, *documents: SearchDocument, **parameters: object) -> DocList[SearchDocument]:
    return client.post(
        endpoint,
        inputs=DocList[SearchDocument](documents),
        parameters=parameters,
        return_type=DocList[SearchDocument],
        results_in_order=True,
        stream=False,  # on a busy machine the end of a stream is now and then lost, and waited for without end
    )


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


COLOURS = {colour: png(colour) for colour in ("red", "green", "blue", "white", "black", "yellow")}


def index_colours(client: Client) -> DocList[SearchDocument]:
    documents = [SearchDocument(key=colour, text=f"all {colour}", image=image) for colour, image in COLOURS.items()]
    return post(client, "/index", *documents)


@pytest.mark.parametrize("endpoint", ["/index", "/search"])
def test_endpoints_keep_their_schemas(endpoint: str) -> None:
    for executor in (Encoder, Indexer):
        [served] = [function for name, function in executor.requests_by_class[executor.__name__].items() if name == endpoint]
        assert served.request_schema.doc_type is SearchDocument
        assert served.response_schema.doc_type is SearchDocument


@pytest.mark.parametrize("name", ["encoder", "indexer"])
def test_executors_load_from_their_folder(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("ATTUNE_ARTIFACT", str(tiny_model))

    executor = Executor.load_config(f"executors/{name}/config.yml")

    assert type(executor).__name__ == name.capitalize()


def test_a_picture_finds_itself(client: Client) -> None:
    stored = index_colours(client)

    found = post(client, "/search", *[SearchDocument(image=image) for image in COLOURS.values()], limit=3)

    assert [document.key for document in stored] == list(COLOURS)
    assert all(document.image == b"" and document.embedding == [] for document in [*stored, *found])
    assert [document.matches[0].key for document in found] == list(COLOURS)
    assert found[0].matches[0].text == "all red"
    assert found[0].matches[0].score == pytest.approx(1.0, abs=1e-5)
    for document in found:
        scores = [match.score for match in document.matches]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_a_text_finds_five_by_default(client: Client) -> None:
    index_colours(client)

    [found] = post(client, "/search", SearchDocument(text="a red square"))

    assert found.text == "a red square"
    assert len(found.matches) == 5


def test_a_bad_document_fails_its_request_and_stores_nothing(client: Client) -> None:
    good, bad = SearchDocument(key="good", text="a cat"), SearchDocument(key="bad", image=b"no picture")

    with pytest.raises(BadServer) as caught:
        post(client, "/index", good, bad)

    exception = caught.value.args[0].status.exception
    assert exception.name == "SearchError"
    assert "document 2, key 'bad': its picture cannot be used" in exception.args[0]
    index_colours(client)
    [found] = post(client, "/search", SearchDocument(text="a cat"), limit=1000)
    assert "good" not in {match.key for match in found.matches}


@pytest.mark.parametrize("limit", [0, 1001, 2.5, "many"])
def test_a_bad_limit_is_refused(client: Client, limit: object) -> None:
    with pytest.raises(BadServer) as caught:
        post(client, "/search", SearchDocument(text="a cat"), limit=limit)

    exception = caught.value.args[0].status.exception
    assert exception.name == "SearchError"
    assert "give a whole number from 1 to 1000" in exception.args[0]


def test_answers_over_http(client: Client, ports: tuple[int, int]) -> None:
    index_colours(client)

    body = {"data": [{"text": "a red square"}], "parameters": {"limit": 2}}
    answer = requests.post(f"http://127.0.0.1:{ports[1]}/search", json=body, timeout=30)

    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["matches"]) == 2


def test_metrics_count_what_was_done(client: Client, service: Service) -> None:
    index_colours(client)
    post(client, "/search", SearchDocument(text="a cat"))

    urls = [f"http://127.0.0.1:{port}" for port in range(service.monitoring_port, service.monitoring_port + 3)]
    gateway, encoder, indexer = (requests.get(url, timeout=30).text for url in urls)

    assert "jina_successful_requests_total" in gateway
    assert _value(encoder, "attune_documents_encoded_total") >= 7
    assert _value(indexer, "attune_documents_indexed_total") >= 6
    assert _value(indexer, "attune_search_seconds_count") >= 1


def _value(metrics: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(f"{name} "))
