"""Requests that no client of ours would send: hypothesis strategies of them, and what may be answered."""

import json
from functools import cache
from typing import Any

import docarray.proto as docs_pb
import grpc
import hypothesis.strategies as st
import requests
from google.protobuf.struct_pb2 import Struct, Value
from jina.proto import jina_pb2, jina_pb2_grpc

from attune import errors
from attune.errors import AttuneError
from attune.schemas import ENDPOINTS, STATES

KNOWN = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AttuneError)} - {
    "AttuneError"
}
"""What an error may be called. A plain `AttuneError` is the service's way to say that it failed by its own mistake."""

NASTY = [
    *("", " ", "\x00", "a\x00b", "\n", "\r\nx: y", ".", "..", "../../etc/passwd", "/etc/passwd", "~root", "default/../x"),
    *(
        "a/b/c",
        "/",
        "//",
        "a//b",
        "./a",
        "a" * 101,
        "a" * 300,
        "é" * 99,
        "ab" * 50_000,
        "%2e%2e%2f",
        "%s%n{0}{c}",
        "${HOME}",
    ),
    *("e\u0301", "\u00e9", "\u202etxt.exe", "\ufeff", "\U0001f600" * 60, "\ud800", "x\udfffy", "nan", "null", "None", "-1"),
    *("CON", "nul", "__class__", "starter", "starter#scratch", "ViT-B-32#/etc/passwd", "ViT-B-32#openai", "#", "a#b#c"),
    *("file:///etc/passwd", "http://127.0.0.1:1/", "http://169.254.169.254/latest", "1e999", "'; DROP TABLE x; --", "real"),
]
NUMBERS = [
    0,
    1,
    -1,
    0.5,
    -0.0,
    2**31,
    -(2**31),
    2**53,
    2**63,
    -(2**63),
    2**64,
    10**30,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
]

texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(), max_size=40), st.text(max_size=2000))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), texts)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
states = st.sampled_from([*STATES, "NONE"])
paths = st.sampled_from(sorted(ENDPOINTS))


def fields_of(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """A document for an endpoint: some of its fields, most of them of the right type."""
    kind = ENDPOINTS[path].takes

    def field(name: str, annotation: Any) -> st.SearchStrategy[Any]:
        meant: Any = {
            str: texts,
            int: st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**30]) | st.integers(),
            float: st.floats(),
            bool: st.booleans(),
            bytes: st.binary(max_size=200),
            list[str]: st.lists(texts, max_size=5),
            dict[str, str]: st.dictionaries(texts, texts, max_size=5),
            dict[str, Any]: settings,
        }.get(annotation, anything)
        return st.sampled_from(["real", "shapes", "model.safetensors"]) | meant if name in ("name", "run") else meant

    fields = {name: field(name, one.annotation) for name, one in kind.model_fields.items() if name != "id"}
    good = st.fixed_dictionaries({}, optional=fields)
    return good | st.builds(lambda one, name, value: {**one, name: value}, good, st.sampled_from([*fields, "x"]), anything)


settings = st.fixed_dictionaries(
    {},
    optional={
        name: values | anything
        for name, values in {
            "model": texts,
            "train_data": st.just("shapes") | texts,
            "eval_data": texts,
            "val_data": texts,
            "baseline": texts,
            "prompt_templates": texts,
            "retention_data": texts,
            "model_artifact": texts,
            "epochs": st.integers(),
            "learning_rate": st.floats(),
            "callbacks": st.lists(st.dictionaries(texts, scalars, max_size=3), max_size=3),
            "devices": texts,
        }.items()
    },
) | st.dictionaries(texts, anything, max_size=4)


@cache  # to make a strategy takes longer than to draw from it
def bodies_for(path: str) -> st.SearchStrategy[tuple[str, Any]]:
    """Of an endpoint, with its path."""
    names = st.sampled_from(["name", "upload", "limit", "trainer"]) | texts
    parameters = st.dictionaries(names, anything)
    data = st.lists(fields_of(path), max_size=3)
    return st.tuples(st.just(path), st.fixed_dictionaries({"data": data}, optional={"parameters": parameters}) | anything)


bodies = paths.flatmap(bodies_for)
"""An endpoint, and the JSON of a request for it."""


def post(url: str, body: Any, **headers: str) -> requests.Response:
    """Posts a body as Python writes it, which has lone surrogates, NaN and numbers without end."""
    text = body if isinstance(body, bytes) else json.dumps(body, default=_as_text).encode()
    return requests.post(url, text, headers={"content-type": "application/json", **headers}, timeout=300)


def _as_text(value: bytes) -> str:
    return value.decode("latin-1")


def check_http(response: requests.Response) -> None:
    """Asserts that the answer is a result, or one of the errors that are meant for callers."""
    shown = f"{response.request.method} {response.request.url} -> {response.status_code} {response.text[:500]}"
    assert response.status_code != 500 or response.json()["error"] in ("RunFailed", "TrainingError", "ExportError"), shown
    if response.ok:
        assert response.json().keys() == {"data"}, shown
    else:
        assert response.json().keys() == {"error", "message"}, shown
        assert response.json()["error"] in KNOWN, shown
        assert response.json()["message"].strip(), shown


def node(depth: int) -> st.SearchStrategy[Any]:
    """A value as docarray puts it on the wire, of whatever type."""
    plain = st.one_of(
        st.builds(lambda value: docs_pb.NodeProto(text=value), st.text(max_size=50) | st.sampled_from(VALID)),
        st.builds(lambda value: docs_pb.NodeProto(integer=value), st.integers(-(2**31), 2**31 - 1)),
        st.builds(lambda value: docs_pb.NodeProto(float=value), st.floats()),
        st.builds(lambda value: docs_pb.NodeProto(boolean=value), st.booleans()),
        st.builds(lambda value: docs_pb.NodeProto(blob=value), st.binary(max_size=50)),
        st.builds(_array, st.sampled_from(["float32", "|O", "O", "<f8", "nonsense", "U5", "V8"]), st.binary(max_size=32)),
        st.just(docs_pb.NodeProto()),
    )
    named = st.builds(_with_type, plain, st.sampled_from(["ndarray", "torch_tensor", "image_bytes", "nonsense", "text_url"]))
    if depth == 0:
        return plain | named
    inner = st.lists(node(depth - 1), max_size=3)
    return st.one_of(
        plain,
        named,
        st.builds(lambda one: docs_pb.NodeProto(list=docs_pb.ListOfAnyProto(data=one)), inner),
        st.builds(lambda one: docs_pb.NodeProto(set=docs_pb.ListOfAnyProto(data=one)), inner),
        st.builds(lambda one: docs_pb.NodeProto(tuple=docs_pb.ListOfAnyProto(data=one)), inner),
        st.builds(
            lambda one: docs_pb.NodeProto(dict=docs_pb.DictOfAnyProto(data=one)),
            st.dictionaries(st.text(), node(depth - 1), max_size=3),
        ),
        st.builds(lambda one: docs_pb.NodeProto(doc=one), document(st.text(max_size=5), depth - 1)),
        st.builds(
            lambda one: docs_pb.NodeProto(doc_array=docs_pb.DocListProto(docs=one)),
            st.lists(document(st.text(max_size=5), depth - 1), max_size=3),
        ),
    )


def document(names: st.SearchStrategy[str], depth: int = 2) -> st.SearchStrategy[Any]:
    """A document with values of whatever type."""
    return st.builds(lambda data: docs_pb.DocProto(data=data), st.dictionaries(names, node(depth), max_size=4))


def _array(dtype: str, buffer: bytes) -> Any:
    found = docs_pb.NodeProto(type="ndarray")
    dense = found.ndarray.dense
    dense.dtype, dense.buffer = dtype, buffer
    dense.shape.append(len(buffer))
    return found


def _with_type(value: Any, kind: str) -> Any:
    value.type = kind
    return value


VALID = [text for text in NASTY if text.isprintable() and text.encode("utf-8", "ignore").decode() == text]


def request_of(path: str, docs: list[Any], parameters: dict[str, Any], target: str = "") -> jina_pb2.DataRequestProto:
    """A request of Jina's."""
    request = jina_pb2.DataRequestProto()
    request.header.exec_endpoint = path
    request.header.target_executor = target
    request.data.docs.docs.extend(docs)
    request.parameters.CopyFrom(_struct(parameters))
    return request


def _struct(values: dict[str, Any]) -> Struct:
    return Struct(fields={name: _value(value) for name, value in values.items()})


def _value(value: Any) -> Value:
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)


@cache
def grpc_requests_for(path: str) -> st.SearchStrategy[jina_pb2.DataRequestProto]:
    """Of an endpoint, which may be none."""
    names = st.sampled_from(["name", "upload", "limit", "trainer", "a__b"])
    return st.builds(
        request_of,
        st.just(path),
        st.lists(document(_names(path)), max_size=3),
        st.dictionaries(names, st.sampled_from(VALID) | st.floats()),
        st.sampled_from(["", "trainer", ".*", "(", "^run_manager$"]),
    )


def _names(path: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*ENDPOINTS[path].takes.model_fields, "x"]) if path in ENDPOINTS else st.text(max_size=5)


grpc_requests = (paths | st.sampled_from(["", "/", "_jina_dry_run_", "/x", "a" * 5000])).flatmap(grpc_requests_for)


def check_grpc(channel: grpc.Channel, request: jina_pb2.DataRequestProto | bytes, metadata: tuple[Any, ...] = ()) -> None:
    """Asserts that the answer to a request, or to bytes in its place, is a result or an error meant for callers."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    call = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data").future(
        raw, timeout=300, metadata=metadata
    )
    refused = call.exception()
    if refused is not None:
        trailing = dict(refused.trailing_metadata() or ())
        assert trailing.get("attune-error") in KNOWN, f"{refused.code()} {refused.details()} {trailing} of {request!r}"
        return
    answer = jina_pb2.DataRequestProto.FromString(call.result())
    status = answer.header.status
    if status.code == jina_pb2.StatusProto.ERROR:
        assert status.exception.name in KNOWN, f"{status} of {request!r}"
        assert not status.exception.stacks
        assert all(not route.status.exception.stacks for route in answer.routes)


_ = jina_pb2_grpc  # registers the messages
