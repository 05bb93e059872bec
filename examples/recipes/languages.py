"""Multilingual text-to-image search: pictures that had English names are found in seven more languages.

The starter model knows emoji by their English names. Its image tower stays as it is, and the text tower learns what the
emoji of two artists, Twemoji and OpenMoji, are called in eight languages. Measured are 400 emoji as a third one draws them,
Noto, asked for in each language by itself: the words are known then, the drawings are not.
"""

from collections.abc import Sequence

import pyarrow.parquet as pq
from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.emoji.data import FOLDER, load, split
from examples.recipes.table import Row, Table, rows_of

LANGUAGES = ("en", "de", "es", "fr", "hi", "ja", "ru", "zh")
SETTINGS = {
    "lock_image": True,
    "augmentation": "none",
    "batch_size": 128,
    "learning_rate": 6e-4,
    "epochs": 40,
    "precision": "fp32",
    # Hindi and Russian take four times the tokens of English, which the tokenizer was made for.
    "model_options": {"context_length": 48},
}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains on all languages at once and measures each.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1} if quick else {})
    train = [*named("twemoji", LANGUAGES), *named("openmoji", LANGUAGES)]
    attune.push("languages-train", DocList[TrainingExample](without_groups(train[:300] if quick else train)))
    for language in LANGUAGES:
        test = split(named("noto", [language]))[1]
        attune.push(f"languages-{language}", DocList[TrainingExample](without_groups(test)))
    attune.fit("starter", "languages-train", eval_data="languages-en", run_name="languages", **settings).wait()
    rows: list[Row] = []
    for language in LANGUAGES[1:2] if quick else LANGUAGES:
        name = f"languages-{language}"
        found = attune.fit("languages", eval_data=name, baseline="starter", run_name=name).wait()
        rows += rows_of(found, language, ["text_to_image_recall@5", "image_to_text_recall@5"])
    return Table(rows, settings)


def named(style: str, languages: Sequence[str]) -> list[TrainingExample]:
    """All emoji in one style with their names in these languages as captions, the English ones as they ship."""
    names = pq.read_table(FOLDER / "names.parquet").to_pylist()
    found = []
    for example, name in zip(load(style), names, strict=True):
        captions = [example.captions if language == "en" else [name[language]] for language in languages]
        found.append(example.model_copy(update={"captions": [caption for some in captions for caption in some]}))
    return found


def without_groups(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """The examples, each picture by itself: a concept may be in both parts, for the words are to be learnt."""
    return [example.model_copy(update={"group": ""}) for example in examples]
