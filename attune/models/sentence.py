"""Text encoders of Hugging Face transformers, as sentence-transformers puts them together: tokens, a pool, dense layers.

A configuration says all of it, and builds the same architecture again:

library          `sentence_transformers`
embed_dim        numbers in an embedding
context_length   tokens of a text that are read
pooler           name in `attune.models.pooling.POOLERS`
dense            layers after it: in_features, out_features, bias, activation_function
prompt           what every text begins with
lower_case       whether texts are put into lower case first
transformer      transformers' own configuration of the encoder
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from attune.errors import SettingsError
from attune.models.pooling import POOLERS
from attune.settings import ModelOptions

ENCODERS = {
    "albert": "AlbertModel",
    "bert": "BertModel",
    "camembert": "CamembertModel",
    "deberta": "DebertaModel",
    "deberta-v2": "DebertaV2Model",
    "distilbert": "DistilBertModel",
    "electra": "ElectraModel",
    "modernbert": "ModernBertModel",
    "mpnet": "MPNetModel",
    "mt5": "MT5EncoderModel",
    "roberta": "RobertaModel",
    "t5": "T5EncoderModel",
    "xlm-roberta": "XLMRobertaModel",
}
"""transformers' class of an encoder by the `model_type` of its configuration."""

ROBERTA = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Encoders whose first places stand for padding."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}
"""What may follow a dense layer, by the name that sentence-transformers writes."""

IDENTITY = "torch.nn.modules.linear.Identity"
SCALE = 20.0
"""Of similarities at the start, sentence-transformers' own: most of these encoders were trained with it."""


class Dense(nn.Module):
    """A linear layer and what follows it; its weights are named as in sentence-transformers.

    Args:
        in_features: numbers that it takes.
        out_features: numbers that it gives.
        bias: whether it adds any.
        activation_function: name in `ACTIVATIONS`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, activation_function: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias)
        self.activation = ACTIVATIONS[activation_function]()

    def forward(self, embeddings: Tensor) -> Tensor:
        """(texts, in_features) to (texts, out_features)."""
        found: Tensor = self.activation(self.linear(embeddings))
        return found


class TextTower(nn.Module):
    """Tokens in, embeddings out.

    Args:
        transformer: an encoder of transformers.
        pooler: name in `POOLERS`.
        dense: layers that follow.
    """

    def __init__(self, transformer: Any, pooler: str, dense: Sequence[Dense]) -> None:
        super().__init__()
        self.transformer = transformer
        self.config = transformer.config
        self.pooler = pooler
        self.dense = nn.ModuleList(dense)
        # BERT's own pool, a layer after the first token, feeds another task than this: it is kept as it is.
        if isinstance(own := getattr(transformer, "pooler", None), nn.Module):
            own.requires_grad_(False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (texts, dim) of int64 tokens (texts, length), of which `mask`, bool, tells the texts' own."""
        found = self.transformer(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        pooled = POOLERS[self.pooler](found.float(), mask)  # sums of many numbers, and powers of them
        for layer in self.dense:
            pooled = layer(pooled)
        return pooled


class SentenceEncoder(nn.Module):
    """A text encoder with what training asks of an open_clip model; it has no image tower.

    Attributes:
        text: the tower.
        logit_scale: logarithm of what similarities are multiplied by in training, a scalar.
    """

    def __init__(self, text: TextTower, pad_id: int) -> None:
        super().__init__()
        self.text = text
        self.pad_id = pad_id
        self.logit_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def lengths(self, tokens: Tensor) -> Tensor:
        """Tokens of each text up to its last, int64 (texts,): the embedding depends on no others.

        Padding within a text, where somebody wrote `[PAD]`, is a part of it.
        """
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return ((tokens != self.pad_id) * places).amax(dim=1).clamp(min=1)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Embeddings (texts, dim) of int64 tokens (texts, length), filled up at the end or cut to the longest.

        Args:
            tokens: of texts.
            normalize: scale to unit length.
        """
        mask = torch.arange(tokens.shape[1], device=tokens.device) < self.lengths(tokens)[:, None]
        found: Tensor = self.text(tokens, mask)
        return F.normalize(found, dim=-1) if normalize else found


def build_sentence(config: dict[str, Any], transformer: Any = None) -> SentenceEncoder:
    """The model of a configuration with random weights, on torch's default device.

    Args:
        config: as above.
        transformer: the encoder, where it is there already.
    """
    if transformer is None:
        own = transformers_config(config)
        transformer = getattr(transformers, ENCODERS[own.model_type])(own)
    dense = [Dense(**layer) for layer in config["dense"]]
    return SentenceEncoder(TextTower(transformer, config["pooler"], dense), config["transformer"]["pad_token_id"])


def transformers_config(config: dict[str, Any]) -> Any:
    """The configuration object of the encoder that transformers has."""
    return transformers.AutoConfig.for_model(**config["transformer"])


def places_of(transformer: Any) -> int:
    """Tokens that an encoder has places for, given transformers' configuration; 0 if it takes any number.

    Args:
        transformer: its configuration.
    """
    most = int(getattr(transformer, "max_position_embeddings", 0) or 0)
    return most - (transformer.pad_token_id + 1 if transformer.model_type in ROBERTA else 0)


def changed_config(config: dict[str, Any], options: ModelOptions) -> dict[str, Any]:
    """The configuration of the model that the options ask for; of none, an equal one."""
    changed = dict(config)
    if options.pooler is not None:
        changed["pooler"] = options.pooler
    if options.context_length is not None:
        changed["context_length"] = options.context_length
    width = options.output_dim
    if width is not None and width != config["embed_dim"]:
        layer = {"in_features": config["embed_dim"], "out_features": width, "bias": False, "activation_function": IDENTITY}
        changed |= {"embed_dim": width, "dense": [*config["dense"], layer]}
    return changed


def check_options(config: dict[str, Any], options: ModelOptions) -> None:
    """Passes if such a model can have the options.

    Raises:
        SettingsError: with what cannot be, and what to choose.
    """
    if options.image_size is not None:
        raise SettingsError(
            f"model_options.image_size = {options.image_size}: the model embeds texts, and takes no pictures. Leave it out"
        )
    most = places_of(transformers_config(config))
    if options.context_length is not None and most and options.context_length > most:
        raise SettingsError(
            f"model_options.context_length = {options.context_length}: the encoder {config['transformer']['model_type']} "
            f"has places for {most} tokens. Choose {most} at most"
        )
