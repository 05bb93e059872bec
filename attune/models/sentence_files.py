"""Text encoders loaded from folders of sentence-transformers or transformers, and saved as such: weights and tokenizers.

What a folder says besides is read and checked by `attune.models.sentence_folder`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attune.models.hub import hub_folder
from attune.models.loaded import Loaded
from attune.models.sentence import (
    ENCODERS,
    SentenceEncoder,
    build_sentence,
    changed_config,
    transformers_config,
)
from attune.models.sentence_folder import CONFIG, MODULES, OWN, POOLS, SentenceFolder, read_sentence_folder
from attune.models.source import ModelSource
from attune.models.vocabulary import load_tokenizer
from attune.models.weights import check_archives, load_weights, save_weights
from attune.settings import ModelOptions

SENTENCE_WEIGHTS = "model.safetensors"


class SentenceTokenizer:
    """Texts in, int64 tokens out, filled up at the end to the longest of them.

    Args:
        tokenizer: of transformers.
        config: see `attune.models.sentence`.

    Attributes:
        pad_id: the token that fills up.
    """

    def __init__(self, tokenizer: Any, config: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.padding_side = "right"
        self._config = config
        self.pad_id: int = config["transformer"]["pad_token_id"]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The tokens of each text, see `ragged`: (texts, length of the longest)."""
        rows = [torch.tensor(tokens) for tokens in self.ragged(texts)]
        return pad_sequence(rows, batch_first=True, padding_value=self.pad_id)

    def ragged(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, the prompt before it, one at least and `context_length` at most."""
        said = [self._config["prompt"] + text for text in texts]
        said = [text.lower() for text in said] if self._config["lower_case"] else said
        length = self._config["context_length"]
        found = self._tokenizer(said, truncation=True, max_length=length, return_attention_mask=False)["input_ids"]
        return [tokens or [self.pad_id] for tokens in found]

    def save_pretrained(self, folder: str) -> None:
        """Writes it into a folder, as transformers does."""
        self._tokenizer.model_max_length = self._config["context_length"]
        if self._tokenizer.is_fast:  # else it would write down how the last texts were filled up
            self._tokenizer.backend_tokenizer.no_padding()
            self._tokenizer.backend_tokenizer.no_truncation()
        self._tokenizer.save_pretrained(folder)


def config_of(source: ModelSource) -> dict[str, Any]:
    """What builds the model of a source, as it comes; of one of the hub, its configuration alone is fetched."""
    return read_sentence_folder(source.folder or hub_folder(source.hub, weights=False)).config


def load(source: ModelSource, options: ModelOptions) -> Loaded:
    """The model of a source, with its weights.

    Args:
        source: of the model.
        options: what of it is to be other, which `check_options` let pass. A layer that they add keeps similarities as
            well as its width can.

    Raises:
        ModelError: see `read_sentence_folder`.
        Exception: of many kinds, if the weights do not fit or cannot be read.
    """
    found = read_sentence_folder(source.folder or hub_folder(source.hub, weights=not source.scratch))
    config = changed_config(found.config, options)
    with _quiet():
        tokenizer = load_tokenizer(found.encoder)
        transformer = None if source.scratch else _load_encoder(found)
    if tokenizer.pad_token_id != config["transformer"]["pad_token_id"]:
        raise ValueError(
            f"its tokenizer fills up with token {tokenizer.pad_token_id}, and config.json says pad_token_id = "
            f"{config['transformer']['pad_token_id']}. Correct one of them"
        )
    model = build_sentence(config, transformer)
    if len(config["dense"]) > len(found.dense):
        torch.nn.init.orthogonal_(dict(model.text.dense[-1].named_parameters())["linear.weight"])
    if not source.scratch:
        for layer, path in zip(model.text.dense, found.dense, strict=False):
            layer.load_state_dict(_dense_weights(path))
        if found.logit_scale is not None:
            model.logit_scale.data.fill_(found.logit_scale)
    same = config["embed_dim"] == found.config["embed_dim"] and not source.scratch
    return Loaded(model, SentenceTokenizer(tokenizer, config), config, {}, found.matryoshka_dims if same else ())


def save(folder: Path, loaded: Loaded, dtype: torch.dtype | None = None) -> None:
    """Writes a folder that sentence-transformers opens, unless its pool is one of ours alone (GeM).

    Args:
        folder: that exists.
        loaded: to save.
        dtype: of the weights, if it is not to be their own.
    """
    model: SentenceEncoder = loaded.model
    config = loaded.config
    save_weights(folder / SENTENCE_WEIGHTS, model.text.transformer.state_dict(), dtype)
    # Whatever type the weights are kept in, embeddings are computed in float32.
    encoder = transformers_config(config).to_dict() | {"architectures": [ENCODERS[config["transformer"]["model_type"]]]}
    _write(folder / CONFIG, encoder | {"dtype": "float32"})
    loaded.tokenizer.save_pretrained(str(folder))
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config["context_length"], "do_lower_case": config["lower_case"]},
    )
    prompts = {"prompts": {"default": config["prompt"]}, "default_prompt_name": "default"} if config["prompt"] else {}
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **prompts})
    width = model.text.config.hidden_size
    modes = {f"pooling_mode_{name}": ours == config["pooler"] for name, ours in POOLS.items()}
    pool = modes if any(modes.values()) else {"pooling_mode": config["pooler"]}
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(folder / "1_Pooling" / CONFIG, {"word_embedding_dimension": width, **pool})
    for layer, described in zip(model.text.dense, config["dense"], strict=True):
        parts.append((f"{len(parts)}_Dense", "Dense"))
        _write(folder / parts[-1][0] / CONFIG, described)
        save_weights(folder / parts[-1][0] / SENTENCE_WEIGHTS, layer.state_dict(), dtype)
    parts.append((f"{len(parts)}_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    _write(folder / MODULES, modules)
    _write(folder / OWN, {"logit_scale": model.logit_scale.item(), "matryoshka_dims": list(loaded.matryoshka_dims)})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _load_encoder(found: SentenceFolder) -> Any:
    check_archives(found.encoder)
    kind = getattr(transformers, ENCODERS[found.config["transformer"]["model_type"]])
    model, facts = kind.from_pretrained(
        found.encoder,
        config=transformers_config(found.config),
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in facts["missing_keys"] if not name.startswith("pooler."))
    if missing or facts.get("mismatched_keys"):
        raise ValueError(f"its weights lack {len(missing)} of those that config.json describes, the first is {missing[:1]}")
    return model


def _dense_weights(folder: Path) -> dict[str, Tensor]:
    if (folder / SENTENCE_WEIGHTS).is_file():
        return load_weights(folder / SENTENCE_WEIGHTS)
    check_archives(folder)
    state: dict[str, Tensor] = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from drawing bars, and from listing the weights of other tasks that it leaves out."""
    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
