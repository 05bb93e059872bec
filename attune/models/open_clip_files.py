"""open_clip's models loaded from the hub, a checkpoint or a folder, and saved as a folder that open_clip opens."""

import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch

from attune.models.architecture import CONFIG, TEXT_TOWER, WRITERS, read_config
from attune.models.loaded import Loaded
from attune.models.open_clip_models import config_of
from attune.models.open_clip_options import with_options
from attune.models.source import ModelSource
from attune.models.untrusted import read_as_data, shorter_lengths
from attune.models.vocabulary import check_tokenizer_file, check_words
from attune.models.weights import check_archives, save_weights
from attune.settings import ModelOptions

WEIGHTS = "open_clip_model.safetensors"
MATRYOSHKA = "matryoshka_dims"
"""What Attune adds to a folder's configuration, where it applies; open_clip does not look at it."""


def load(source: ModelSource, options: ModelOptions) -> Loaded:
    """The model of a source, with its weights.

    Args:
        source: of the model.
        options: what of it is to be other, which `check_options` let pass.

    Raises:
        SettingsError: if a text tower of Hugging Face has no place for so many tokens.
        Exception: of many kinds, if weights cannot be had or do not fit.
    """
    config = config_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # open_clip warns of settings that `_config` has already put right
        check_archives(source.folder or Path(source.weights))
        given = _with_text_tower(config, source.folder)
        _refuse_code_of_text_tower(given)
        model = open_clip.create_model(
            source.open_clip_name,
            pretrained=source.weights or None,
            load_weights=not source.scratch,
            require_pretrained=not source.scratch,  # else open_clip leaves random weights where it finds none
            force_quick_gelu=bool(config.get("quick_gelu", False)),
            pretrained_text=False,
            device="cpu",
            weights_only=True,  # tensors, and no other Python objects
            **({} if given is config else {"text_cfg": {**given["text_cfg"], "hf_model_pretrained": False}}),
        )
        model, changed = with_options(model, given, options)
        if given is not config:  # the artifact names the tower as the hub does
            changed["text_cfg"]["hf_model_name"] = config["text_cfg"]["hf_model_name"]
        # transformers would ask on the terminal whether to run code that it finds beside a tokenizer.
        safe = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
        if source.folder and safe:
            check_tokenizer_file(source.folder)
        tokenizer = open_clip.get_tokenizer(source.open_clip_name, options.context_length, **safe)
        if source.folder and safe:
            check_words(tokenizer.tokenizer, source.folder)
    preprocess = json.loads(json.dumps(open_clip.get_model_preprocess_cfg(model)))
    return Loaded(model, tokenizer, changed, preprocess, _matryoshka_dims(source, changed["embed_dim"]))


def save(folder: Path, loaded: Loaded, dtype: torch.dtype | None = None) -> None:
    """Weights, configuration and tokenizer, so that open_clip opens the folder as `local-dir:FOLDER`.

    Args:
        folder: that exists.
        loaded: to save.
        dtype: of floating-point weights, if not their own.
    """
    save_weights(folder / WEIGHTS, loaded.model.state_dict(), dtype)
    config: dict[str, Any] = {"model_cfg": loaded.config, "preprocess_cfg": loaded.preprocess}
    if loaded.matryoshka_dims:
        config[MATRYOSHKA] = list(loaded.matryoshka_dims)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if loaded.config["text_cfg"].get("hf_model_name"):
        # open_clip's names it alone, and would ask the hub what it is.
        loaded.model.text.config.to_json_file(folder / TEXT_TOWER, use_diff=False)
    if hasattr(loaded.tokenizer, "save_pretrained"):  # Hugging Face tokenizers; CLIP's own is part of open_clip
        loaded.tokenizer.save_pretrained(str(folder))


def _matryoshka_dims(source: ModelSource, width: int) -> tuple[int, ...]:
    """What an artifact says of its shorter embeddings; nothing of random weights, or of embeddings of another width."""
    if source.folder is None or source.scratch:
        return ()
    config = read_config(source.folder)
    own = config["model_cfg"].get("embed_dim", 0)
    with read_as_data(source.folder / CONFIG, WRITERS):
        found = shorter_lengths(config.get(MATRYOSHKA, []), own)
    return found if own == width else ()


def _with_text_tower(config: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The configuration that builds the text tower as the folder says, where it does: else the hub is asked what it is."""
    text = config["text_cfg"]
    if folder is None or not text.get("hf_model_name") or not (folder / TEXT_TOWER).is_file():
        return config
    return {**config, "text_cfg": {**text, "hf_model_name": str(folder / TEXT_TOWER)}}


def _refuse_code_of_text_tower(config: dict[str, Any]) -> None:
    """Raises if the hub's text tower that the configuration names brings code of its own to run."""
    tower = config["text_cfg"].get("hf_model_name")
    if not tower:
        return
    from transformers import AutoConfig

    if getattr(AutoConfig.from_pretrained(tower, trust_remote_code=False), "auto_map", None):
        raise ValueError(f"the text tower {tower!r} would run code of its own")
