"""The tokenizer that lies in a model folder: whether it is there, and whether it knows any words.

Of a folder without one transformers makes a tokenizer that knows its marks alone, and every word is unknown to it.
"""

from pathlib import Path
from typing import Any

import transformers

from attune.models.untrusted import read_as_data, read_object

WRITERS = "its library"

FILE = "tokenizer.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
"""What a tokenizer is read from where there is no `tokenizer.json`: one of these."""

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

MAX_BYTES = 200_000_000
"""Of `tokenizer.json`: those for many languages have some tens of millions."""

PROBES = 256
"""Words of a vocabulary that are tried."""


def check_tokenizer_files(folder: Path) -> None:
    """Passes if a folder holds a tokenizer; what is in it is looked at when it is loaded.

    Raises:
        ValueError: if there is none, or the files beside it hold no JSON objects.
    """
    if not any((folder / name).is_file() for name in (FILE, *VOCABULARIES)):
        raise ValueError(
            f"it has no tokenizer: there is no {FILE}, and none of {', '.join(VOCABULARIES)}. Copy the tokenizer's files "
            "beside the weights"
        )
    for name in SETTINGS:
        if (folder / name).exists():
            read_object(folder / name)


def check_tokenizer_file(folder: Path) -> None:
    """Passes if `tokenizer.json`, where there is one, is such a file.

    Raises:
        ModelError: if it is not.
    """
    if (folder / FILE).exists():
        with read_as_data(folder / FILE, WRITERS):
            found = read_object(folder / FILE, MAX_BYTES)
            if not isinstance(found.get("model"), dict) or not isinstance(found.get("added_tokens"), list):
                raise ValueError("it has to have an object model and a list added_tokens")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, by transformers; no code that lies there is run.

    Raises:
        ModelError: if it cannot be read, or knows no words.
    """
    check_tokenizer_file(folder)
    with read_as_data(folder, WRITERS):
        try:
            found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # each tokenizer says it in its own way
            said = str(error)[:300].rstrip(". ") or type(error).__name__
            raise ValueError(f"transformers makes no tokenizer of its tokenizer's files ({said})") from error
    check_words(found, folder)
    return found


def check_words(tokenizer: Any, folder: Path) -> None:
    """Passes if a tokenizer knows words: of its own vocabulary, whatever the language.

    Args:
        tokenizer: of transformers.
        folder: that it was read from.

    Raises:
        ModelError: if it has none besides its marks, or takes each of them for an unknown one.
    """
    marks = {*tokenizer.all_special_ids}
    words = sorted({*tokenizer.get_vocab().values()} - marks)
    with read_as_data(folder, WRITERS):
        if not words:
            raise ValueError(f"its tokenizer's vocabulary is empty: it knows {len(marks)} marks and no words")
        probes = [tokenizer.decode([word]) for word in words[:: -(-len(words) // PROBES)]]
        if not any({*tokens} - marks for tokens in tokenizer(probes, add_special_tokens=False)["input_ids"]):
            raise ValueError("its tokenizer takes every word for an unknown one, those of its own vocabulary as well")
