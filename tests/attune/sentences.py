"""Tiny text encoders of transformers, for tests."""

import json
import string
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BertConfig, BertModel, BertTokenizer

from tests.attune.texts import MARKS, PLACES

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = (
    " ".join((*MARKS, *MARKS.values(), *PLACES, *PLACES.values(), "where is a all")).replace("<b>", "").replace("</b>", "")
)
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *string.punctuation,
    *string.ascii_lowercase,
    *sorted({word for word in WORDS.split() if len(word) > 1}),
]


def tokenizer() -> Any:
    """A WordPiece tokenizer that knows the words of `questions`, and letters."""
    return BertTokenizer(vocab={word: number for number, word in enumerate(VOCABULARY)}, model_max_length=40)


def save_plain(folder: Path, **changes: Any) -> Path:
    """Saves a BERT of random weights, two blocks, as transformers does."""
    config = BertConfig(**{**SIZES, "vocab_size": len(VOCABULARY), "max_position_embeddings": 48, **changes})
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_sentence(folder: Path, pooling: dict[str, Any] | None = None, dense: dict[str, Any] | None = None) -> Path:
    """Saves the same as sentence-transformers does: with a mean, nothing after it, and 32 tokens of a text."""
    save_plain(folder)
    parts = {"": "Transformer", "1_Pooling": "Pooling"}
    write(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, **(pooling or {"pooling_mode_mean_tokens": True})},
    )
    if dense is not None:
        parts["2_Dense"] = "Dense"
        write(folder / "2_Dense" / "config.json", dense)
        linear = torch.nn.Linear(dense["in_features"], dense["out_features"])
        torch.save(
            {f"linear.{name}": value for name, value in linear.state_dict().items()},
            folder / "2_Dense" / "pytorch_model.bin",
        )
    parts[f"{len(parts)}_Normalize"] = "Normalize"
    write_modules(folder, parts)
    return folder


def write_modules(folder: Path, parts: dict[str, str]) -> None:
    """Writes `modules.json` of these paths and kinds."""
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts.items())
    ]
    write(folder / "modules.json", modules)


def write(path: Path, value: Any) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def token_embeddings(folder: Path, text: str, length: int) -> torch.Tensor:
    """What transformers alone gives for each token of one text: (tokens, dim)."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    given = transformers.AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        found: torch.Tensor = model(**given).last_hidden_state[0]
    return found
