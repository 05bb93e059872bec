"""The Parquet files of datasets: what a row is, how it is written and read.

They follow the Hugging Face image convention: `datasets.load_dataset("parquet", data_files=...)` shows pictures. A row has a
picture or a text, and its key is the SHA-256 of the picture's bytes, or of the text as UTF-8. Of pairs of pictures, a row
names its matches by their keys; a part holds each picture once, one that is no item of its own in a row without a group.
Every item has a group; a single one has neither captions nor matches. An embedding stands in the place of a picture, as the
bytes of a `.npy` file.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attune.data.embeddings import is_embedding
from attune.schemas import TrainingExample

_FEATURES = {
    "image": {"_type": "Image"},
    "image_sha256": {"dtype": "string", "_type": "Value"},
    "text": {"dtype": "string", "_type": "Value"},
    "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "matches": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "scores": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
    "negatives": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "margins": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
    "group": {"dtype": "string", "_type": "Value"},
    "label": {"dtype": "string", "_type": "Value"},
    "tags": {"dtype": "string", "_type": "Value"},
    "source": {"dtype": "string", "_type": "Value"},
}
_BYTES = {"bytes": {"dtype": "binary", "_type": "Value"}, "path": {"dtype": "string", "_type": "Value"}}
"""Of embeddings: `datasets` would try to show pictures."""
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_sha256", pa.string()),  # the key, of a text as well
        ("text", pa.string()),  # null where there is a picture
        ("captions", pa.list_(pa.string())),
        ("matches", pa.list_(pa.string())),  # keys
        ("scores", pa.list_(pa.float64())),  # of each caption; null, as the next two, where there are none
        ("negatives", pa.list_(pa.string())),
        ("margins", pa.list_(pa.float64())),  # of each negative
        ("group", pa.string()),  # null where a picture is a match only
        ("label", pa.string()),
        ("tags", pa.string()),  # a JSON object: maps are not read well everywhere
        ("source", pa.string()),
    ]
)
LISTS = ("scores", "negatives", "margins")
"""What an example may have besides captions; not besides pictures in their place."""

OPTIONAL = ("text", "captions", "matches", *LISTS)
"""Columns that a part has only if any of its rows has them."""

CONTENT = ("image_sha256", "captions", "group", "label", "tags", "matches", *LISTS)
"""Columns that say what a row holds; where it came from is no part of that, and a text is there by its key."""


def write_part(path: Path, examples: Iterable[TrainingExample]) -> None:
    """Writes examples as one Parquet file, without those `OPTIONAL` columns that would be empty."""
    examples = list(examples)
    rows = [_row(example) for example in examples]
    there = {row["image_sha256"] for row in rows}
    for image in dict.fromkeys(image for example in examples for image in example.images):
        if (key := _key(image)) not in there:
            rows.append({"image": {"bytes": image, "path": None}, "image_sha256": key})
    empty = {name for name in OPTIONAL if not any(row.get(name) for row in rows)}
    features: dict[str, Any] = {name: kind for name, kind in _FEATURES.items() if name not in empty}
    if any(is_embedding(example.image) for example in examples):
        features["image"] = _BYTES
    schema = pa.schema(
        [column for column in SCHEMA if column.name not in empty],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def find_parts(folder: Path) -> list[Path]:
    """The Parquet files of a dataset's folder, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_rows(parts: Sequence[Path]) -> pa.Table:
    """All rows without their pictures: every column of `SCHEMA` but `image`; tags are JSON.

    A picture that is a match only has no group; a single item has neither captions nor matches.
    """
    # With the schema given, a column that a part does not have is one of nulls: datasets of before have no label, no tags,
    # no text, no matches, no scores.
    columns = [name for name in SCHEMA.names if name != "image"]
    table = pq.read_table([str(part) for part in parts], schema=SCHEMA, columns=columns)
    for name, empty in (("label", ""), ("tags", "{}")):
        table = table.set_column(table.column_names.index(name), name, pc.fill_null(table[name], empty))
    return table


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _row(example: TrainingExample) -> dict[str, Any]:
    digest = _key(example.image or example.text.encode())
    return {
        "image": {"bytes": example.image, "path": None} if example.image else None,
        "image_sha256": digest,
        "text": example.text or None,
        "captions": example.captions or None,
        "matches": [_key(image) for image in example.images] or None,
        "scores": example.scores or None,
        "negatives": example.negatives or None,
        "margins": example.margins or None,
        "group": example.group or digest,
        "label": example.label,
        "tags": json.dumps(example.tags, ensure_ascii=False, sort_keys=True),
        "source": example.source,
    }
