"""Text embeddings from no more tokens than the captions need."""

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.func import functional_call

from attune.models.sentence import SentenceEncoder

BUCKETS = 4
"""Parts of a batch that are encoded apart. Each takes its time to set up: more parts save little."""

BUCKET_ROWS = 20
"""The least captions in a part: each reads all weights and fills gradients for all of them, however few its rows."""


def trim(tokens: Tensor, model: nn.Module) -> Tensor:
    """Tokens up to the longest caption, for `encode_text`; all of them if the tower's embedding depends on the padding.

    In a causal tower a token sees none of those after it, and the embedding is read off the end-of-text token: what
    follows it changes neither the embedding nor a gradient. Captions seldom take half of CLIP's 77 tokens. A tower that
    looks both ways (SigLIP), pools elsewhere (CoCa's class token) or is one of Hugging Face in a CLIP is given all of them.
    A `SentenceEncoder` leaves padding out by itself.

    Args:
        tokens: int64 (texts, length), best while still on the processor: on an accelerator, this waits for it.
        model: an open_clip model or a `SentenceEncoder`.

    Returns:
        A view of `tokens`, (texts, length).
    """
    lengths = _lengths(tokens, model)
    return tokens if lengths is None else tokens[:, : int(lengths.max())]


def encode_by_length(model: nn.Module, tokens: Tensor) -> Tensor:
    """The same as `encode_text`, with short captions apart from long ones, each part cut to its own longest.

    On an accelerator it waits for the tokens' lengths, and many small matrices leave it idle: it is for processors.
    """
    lengths = _lengths(tokens, model)
    parts = min(BUCKETS, len(tokens) // BUCKET_ROWS)
    if lengths is None or parts < 2:
        return encode_text(model, tokens)
    order = lengths.argsort(stable=True)
    found = [encode_text(model, tokens[rows, : lengths[rows[-1]]]) for rows in order.tensor_split(parts)]
    return torch.cat(found)[order.argsort()]


def encode_text(model: nn.Module, tokens: Tensor, normalize: bool = True) -> Tensor:
    """Embeddings (texts, dim) of full or trimmed tokens, equal but for rounding.

    Gradients flow to the whole positional embedding. The model's tensors are exchanged during the call: not for two
    threads at once on the same model.

    Args:
        model: an open_clip model or a `SentenceEncoder`.
        tokens: int64 (texts, context_length), or shorter, from `trim`.
        normalize: scale to unit length.

    Raises:
        ValueError: if the tokens are cut although the tower needs all of them.
    """
    tower = _text_tower(model)
    length = tokens.shape[1]
    if _is_own(tower) and length < tower.context_length:
        if _causal_tower(model) is None:
            raise ValueError(
                f"Tokens of length {length} for a text tower whose embedding depends on all {tower.context_length}. "
                "Cut tokens with attune.models.text.trim, which leaves those of such a tower whole"
            )
        prefix = "model." if tower is model else "model.text."
        narrow = {
            f"{prefix}positional_embedding": tower.positional_embedding[:length],
            f"{prefix}attn_mask": tower.attn_mask[:length, :length],
        }
        encoded: Tensor = functional_call(_TextEncoder(model), narrow, (tokens,), tie_weights=False)
    else:
        encoded = _TextEncoder(model)(tokens)
    return F.normalize(encoded, dim=-1) if normalize else encoded


class _TextEncoder(nn.Module):
    """A model's `encode_text` as the `forward` that `functional_call` calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.model.encode_text(tokens, normalize=False)
        return encoded


def _lengths(tokens: Tensor, model: nn.Module) -> Tensor | None:
    """Tokens of each caption that its embedding depends on, int64 (texts,); None if it is all of them, or there are none."""
    if not tokens.numel():
        return None
    if isinstance(model, SentenceEncoder):
        return model.lengths(tokens)
    tower = _causal_tower(model)
    if tower is None:
        return None
    pool_type, eos_id = _pooling(tower)
    # The same position that open_clip pools at, the first of them if there are several, also in a cut caption.
    return (tokens if pool_type == "argmax" else (tokens == eos_id).int()).argmax(dim=-1) + 1


def _causal_tower(model: nn.Module) -> Any | None:
    """The text tower, if no embedding depends on what follows its end-of-text token."""
    tower = _text_tower(model)
    exact = (
        _is_own(tower)
        and tower.attn_mask is not None
        and getattr(tower, "cls_emb", None) is None
        and _pooling(tower)[0] in ("argmax", "eos")
    )
    return tower if exact else None


def _text_tower(model: nn.Module) -> Any:
    """The module that has the text tower's parts: in open_clip's `CLIP`, the model itself."""
    return getattr(model, "text", model)


def _is_own(tower: Any) -> bool:
    return isinstance(tower, open_clip.CLIP | TextTransformer)


def _pooling(tower: Any) -> tuple[str, int]:
    """Pool type and id of the end-of-text token; open_clip's `CLIP` names them differently than `TextTransformer`."""
    if isinstance(tower, open_clip.CLIP):
        return tower.text_pool_type, tower.text_eos_id
    return tower.pool_type, tower.eos_id
