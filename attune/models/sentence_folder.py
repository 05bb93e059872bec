"""A model folder of sentence-transformers, or of a plain encoder of transformers: read as data that anyone may have written.

modules.json                        the parts in order: the encoder, a pool, dense layers, the scaling to unit length
config.json                         the encoder's architecture
model.safetensors                   its weights; what torch wrote (pytorch_model.bin) is read as tensors and nothing else
tokenizer.json ...                  its tokenizer
sentence_bert_config.json           tokens of a text that are read
config_sentence_transformers.json   what texts begin with
1_Pooling/config.json               how one embedding is made of the tokens'
2_Dense/config.json, ...            a layer after it, if there are any
attune.json                         what training goes on with: the temperature, lengths of shorter embeddings

A plain encoder has none of the parts: its tokens' mean is taken. Parts that are not known here, or that would run code, are
refused.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from attune.models.pooling import POOLERS
from attune.models.sentence import ACTIVATIONS, ENCODERS, build_sentence, places_of, transformers_config
from attune.models.untrusted import (
    MOST_LAYERS,
    MOST_WORDS,
    build_shell,
    check_numbers,
    is_size,
    part,
    read_as_data,
    read_json,
    read_object,
    refuse_code,
    shorter_lengths,
    temperature,
)
from attune.models.vocabulary import check_tokenizer_files

MODULES = "modules.json"
CONFIG = "config.json"
OWN = "attune.json"

MOST_PARTS = 16
LONGEST_CONTEXT = 32_768
LONGEST_PROMPT = 10_000
MOST_DENSE = 16_384
DEFAULT_LENGTH = 512
"""Tokens that are read of a text where nothing says how many."""

_NAME = re.compile(r"[\w-][\w.-]*")
POOLS = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "lasttoken": "last"}
"""Names of pools in folders, `pooling_mode_cls_token` and so on, and ours."""
_NOT_OURS = (
    "architectures",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "return_dict",
    "torchscript",
    "pruned_heads",
)
_BEGIN = ("_", "attn_", "dtype", "output_", "torch_dtype", "transformers_")
"""Entries of an encoder's configuration, and beginnings of their names, that are about other tasks or how it is computed."""


class SentenceFolder(NamedTuple):
    """What a folder says.

    Attributes:
        encoder: the folder with the encoder's weights and tokenizer.
        dense: the folders of the layers after the pool.
        config: see `attune.models.sentence`.
        logit_scale: logarithm of the temperature that training goes on with; None for the one to begin with.
        matryoshka_dims: lengths of shorter embeddings that it was trained for.
    """

    encoder: Path
    dense: tuple[Path, ...]
    config: dict[str, Any]
    logit_scale: float | None
    matryoshka_dims: tuple[int, ...]


def is_sentence_folder(folder: Path) -> bool:
    """Whether a folder is meant to be such a model."""
    return (folder / MODULES).is_file() or (folder / CONFIG).is_file()


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Everything that a folder says, checked.

    Raises:
        ModelError: if it is no such model, would run code, has parts that are not known here, or is too large to be meant.
    """
    with read_as_data(folder, "sentence-transformers, transformers or Attune"):
        return _read(folder)


def _read(folder: Path) -> SentenceFolder:
    kinds = _parts(folder)
    encoder = folder / kinds[0][1]
    transformer = _encoder_config(_json(encoder / CONFIG))
    said = _json(folder / "config_sentence_transformers.json", {})
    length = _json(next(iter(sorted(encoder.glob("sentence_*_config.json"))), encoder / "none"), {})
    pooler, dense = "mean", []
    for kind, path in kinds[1:]:
        if kind == "Pooling":
            pooler = _pooler(_json(folder / path / CONFIG))
        elif kind == "Dense":
            dense.append(_dense_config(_json(folder / path / CONFIG)))
    config = {
        "library": "sentence_transformers",
        "embed_dim": 0,
        "context_length": _context_length(transformer, length, _json(encoder / "tokenizer_config.json", {})),
        "pooler": pooler,
        "dense": dense,
        "prompt": _prompt(said),
        "lower_case": length.get("do_lower_case", False) is True,
        "transformer": transformer,
    }
    width = _width(config)
    for layer in dense:
        if layer["in_features"] != width:
            raise ValueError(f"a dense layer takes {layer['in_features']} numbers, and what comes before gives {width}")
        width = layer["out_features"]
    config["embed_dim"] = width
    scale, dims = _own(_json(folder / OWN, {}), width)
    paths = tuple(folder / path for kind, path in kinds if kind == "Dense")
    _refuse_adapters(encoder)
    check_tokenizer_files(encoder)
    return SentenceFolder(encoder, paths, config, scale, dims)


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a JSON file holds, which is an object; `default`, if there is one and no such file."""
    return default if default is not None and not path.exists() else read_object(path)


def _parts(folder: Path) -> list[tuple[str, str]]:
    """Kind and path of each part, in order."""
    if not (folder / MODULES).is_file():
        return [("Transformer", "")]
    given = read_json(folder / MODULES)
    if not isinstance(given, list):
        raise ValueError(f"{MODULES} holds no list of parts")
    for one in given:
        if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in ("type", "path")):
            raise ValueError(f"{MODULES}: the part {repr(one)[:100]} has to be a JSON object with the texts type and path")
    found = [(_kind(one["type"]), one["path"]) for one in given[:MOST_PARTS]]
    for _, path in found:
        if path and not _NAME.fullmatch(path):
            raise ValueError(f"{MODULES}: the path {path[:100]!r} is no plain name")
    order = " ".join(kind for kind, _ in found)
    if len(given) > MOST_PARTS or not re.fullmatch(r"Transformer Pooling( Dense)*( Normalize)?", order):
        raise ValueError(
            f"{MODULES} puts together {order}: what is known is Transformer, Pooling, any number of Dense, and Normalize"
        )
    return found


def _kind(name: str) -> str:
    """`Pooling` of `sentence_transformers.models.Pooling`, wherever in the library it lies."""
    if not name.startswith("sentence_transformers."):
        raise ValueError(f"{MODULES} names {name[:100]!r}, which would run code of its own")
    return name.rpartition(".")[2]


def _encoder_config(given: dict[str, Any]) -> dict[str, Any]:
    """What transformers builds the encoder from."""
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in ENCODERS:
        raise ValueError(f"{CONFIG}: model_type = {str(kind)[:100]!r}; known are {', '.join(ENCODERS)}")
    refuse_code(given)
    if given.get("is_decoder") or given.get("add_cross_attention"):
        raise ValueError(f"{CONFIG} describes a decoder")
    own = _ours(given)
    check_numbers(own, _most)
    return _ours(transformers_config({"transformer": own}).to_dict())  # with what the folder leaves to transformers


def _ours(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in _NOT_OURS and not name.startswith(_BEGIN)}


def _most(name: str) -> int:
    """Of layers and the like few; of all else as many as there are words. What it comes to is counted."""
    return MOST_LAYERS if re.search(r"layers|group|^num_|^n_", name) else MOST_WORDS


def _width(config: dict[str, Any]) -> int:
    """Numbers in the embedding of a token."""
    transformer = config["transformer"]
    if transformer.get("num_hidden_groups", 1) * transformer.get("inner_group_num", 1) > MOST_LAYERS:  # ALBERT's
        raise ValueError(f"num_hidden_groups times inner_group_num is larger than {MOST_LAYERS}")
    return _hidden_size(json.dumps({**config, "dense": []}))


@lru_cache(maxsize=64)
def _hidden_size(config: str) -> int:
    given = json.loads(config)
    model = build_shell(lambda: build_sentence(given), "transformers", "an encoder")
    return int(model.text.config.hidden_size)


def _context_length(transformer: dict[str, Any], length: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    places = places_of(transformers_config({"transformer": transformer})) or MOST_WORDS
    given = length.get("max_seq_length") or tokenizer.get("model_max_length") or places
    if isinstance(given, bool) or not isinstance(given, int | float) or given < 1:
        raise ValueError(f"max_seq_length or model_max_length is {str(given)[:100]}, no number of tokens")
    found = min(given, places)
    return min(int(found), LONGEST_CONTEXT) if found < MOST_WORDS else DEFAULT_LENGTH


def _pooler(given: dict[str, Any]) -> str:
    named = given.get("pooling_mode")
    modes = (
        [named]
        if isinstance(named, str)
        else named
        or [
            name.removeprefix("pooling_mode_")
            for name, value in given.items()
            if name.startswith("pooling_mode_") and value is True
        ]
    )
    names = {ours: ours for ours in POOLERS} | POOLS
    if not isinstance(modes, list) or len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in names:
        raise ValueError(f"its pool is {str(modes)[:200]}; known is one of {', '.join(names)}")
    if given.get("include_prompt", True) is not True:
        raise ValueError("its pool leaves the prompt out, which is not known here")
    return names[modes[0]]


def _dense_config(given: dict[str, Any]) -> dict[str, Any]:
    taken = {name: given.get(name, "sentence_embedding") for name in ("module_input_name", "module_output_name")}
    if given.get("use_residual") or any(name not in ("sentence_embedding", None) for name in taken.values()):
        raise ValueError("a dense layer has a residual, or takes something else than the embedding, which is not known here")
    sizes = {name: given[name] for name in ("in_features", "out_features")}
    if not all(is_size(size, MOST_DENSE) for size in sizes.values()):
        raise ValueError(f"a dense layer has {str(sizes)[:200]}; each is from 1 to {MOST_DENSE:,}")
    activation = given.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"a dense layer is followed by {str(activation)[:100]!r}; known are {', '.join(ACTIVATIONS)}")
    return {**sizes, "bias": given.get("bias", True) is True, "activation_function": activation}


def _prompt(given: dict[str, Any]) -> str:
    """What texts begin with if nothing is said of them; prompts that are asked for by name are not used."""
    name = given.get("default_prompt_name")
    prompts = part(given, "prompts")
    if name and (not isinstance(name, str) or name not in prompts):
        raise ValueError(f"default_prompt_name = {repr(name)[:100]} is none of its prompts")
    prompt = prompts[name] if name else ""
    if not isinstance(prompt, str) or len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"the prompt {str(name)[:100]!r} is no text of at most {LONGEST_PROMPT:,} characters")
    return prompt


def _own(given: dict[str, Any], width: int) -> tuple[float | None, tuple[int, ...]]:
    """The temperature's logarithm and the lengths of shorter embeddings that Attune wrote down."""
    return temperature(given.get("logit_scale")), shorter_lengths(given.get("matryoshka_dims", []), width)


def _refuse_adapters(encoder: Path) -> None:
    """Raises if transformers would load more than the encoder's own weights from its folder, or from elsewhere."""
    if (encoder / "adapter_config.json").exists():
        raise ValueError("it holds adapter_config.json. Merge the adapter into the weights first")
    for index in encoder.glob("*.index.json"):
        named = part(_json(index), "weight_map")
        if not all(isinstance(file, str) and _NAME.fullmatch(file) for file in named.values()):
            raise ValueError(f"{index.name} names files that are not in the folder")
