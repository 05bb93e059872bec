"""Documents as JSON: the same fields, bytes as base64, without docarray's `id`."""

import base64
from functools import cache
from typing import Any

from docarray import BaseDoc, DocList
from pydantic import Base64Bytes, BaseModel, Field, create_model
from pydantic_core import PydanticUndefined


@cache
def json_model(kind: type[BaseDoc]) -> type[BaseModel]:
    """A pydantic model of a document class, for request bodies and OpenAPI. Every field may be left out."""
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name != "id":
            default = None if field.default is PydanticUndefined else field.default
            fields[name] = (_json_type(field.annotation), Field(default=default, description=field.description))
    return create_model(kind.__name__, __doc__=kind.__doc__, **fields)


def from_json(kind: type[BaseDoc], body: BaseModel) -> BaseDoc:
    """The document that a JSON body describes; fields left out take the class's defaults."""
    return kind(**_fields(body))


def to_json(value: Any) -> Any:
    """JSON-ready form of a document, or of a value in one."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, BaseDoc):
        return {name: to_json(getattr(value, name)) for name in type(value).model_fields if name != "id"}
    if isinstance(value, DocList | list):
        return [to_json(one) for one in value]
    return value


def _fields(value: Any) -> Any:
    """What was given in a body, as plain Python. `model_dump` would turn bytes back into base64."""
    if isinstance(value, BaseModel):
        return {name: _fields(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, list):
        return [_fields(item) for item in value]
    return value


def _json_type(annotation: Any) -> Any:
    if annotation is bytes:
        return Base64Bytes
    if annotation == list[bytes]:
        return list[Base64Bytes]
    if isinstance(annotation, type) and issubclass(annotation, DocList):
        return list[json_model(annotation.doc_type)]  # type: ignore[misc]
    if isinstance(annotation, type) and issubclass(annotation, BaseDoc):
        return json_model(annotation)
    return annotation
