"""The gradients of one training step: of the whole batch at once, or in pieces with the same result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attune.models.trainable import trains_batch_norms

Encode = Callable[[Tensor], Tensor]
LossOf = Callable[[Tensor, Tensor], Tensor]
RandomState = tuple[Tensor, Tensor | None]  # of the processor and, for rows that are there, of the GPU


def backward(
    encode_images: Encode,
    encode_texts: Encode,
    images: Tensor,
    texts: Tensor,
    loss_of: LossOf,
    micro_batch_size: int | None = None,
    model: nn.Module | None = None,
) -> Tensor:
    """Adds a contrastive loss's gradients to `.grad` of the parameters, and returns the loss: a detached scalar.

    A contrastive loss compares all rows with each other, so the mean over micro-batches is another loss with fewer
    negatives. In micro-batches the method here is GradCache (Gao et al. 2021, arXiv:2101.06983): encode all rows without a
    graph, take the loss and its gradient at the embeddings, then encode piece by piece again, each piece's share of
    that gradient flowing on into the weights. The second time, torch's random numbers (dropout) are
    those of the first. The result is exact; activations of one piece are kept, for one more forward pass.

    Two things depend on the pieces: random numbers are drawn piece by piece, and BatchNorm in training mode takes
    the mean and variance of each micro-batch by itself. Its running statistics are updated by the first pass only.

    Args:
        encode_images: rows of `images` to embeddings (rows, dim), with normalisation and autocast.
        encode_texts: rows of `texts` to embeddings (rows, dim), likewise.
        images: this process's pictures, uint8 (n, 3, height, width); or tokens of texts in their place.
        texts: this process's tokens, int64 (m, length); m is n or, with several captions a picture, another number.
        loss_of: image and text embeddings to a scalar, over those of all processes if there are several; parameters it
            uses, such as `logit_scale`, get gradients too. Called once, outside of any autocast of the encoders.
        micro_batch_size: the most rows encoded at a time, at least 1; pieces' sizes differ by at most one. None, or
            as many as there are rows, encodes all at once. With a BatchNorm that is trained a piece has two rows or
            three where it asks for fewer: one row has no variance.
        model: module with the buffers that the encoders change, if any: models with BatchNorm need it to have their
            statistics updated once and not twice, in micro-batches and with gradient checkpointing.

    Raises:
        ValueError: if `micro_batch_size` is below 1.
    """
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(f"micro_batch_size = {micro_batch_size}: a piece has at least 1 row")
    if micro_batch_size is None or micro_batch_size >= max(len(images), len(texts)):
        loss = loss_of(encode_images(images), encode_texts(texts))
        with _left_as_it_is(model=model):  # gradient checkpointing encodes a second time here
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    image_pass = _first_pass(encode_images, pieces_of(images, micro_batch_size, model))
    text_pass = _first_pass(encode_texts, pieces_of(texts, micro_batch_size, model))
    loss = loss_of(image_pass.embeddings, text_pass.embeddings)
    loss.backward()  # type: ignore[no-untyped-call]
    with _left_as_it_is(images.device, texts.device, model=model):
        _second_pass(encode_images, image_pass)
        _second_pass(encode_texts, text_pass)
    return loss.detach()


def pieces_of(rows: Tensor, micro_batch_size: int | None, model: nn.Module | None = None) -> tuple[Tensor, ...]:
    """The pieces in which `backward` encodes rows, at least one; their sizes differ by at most one.

    Args:
        rows: (n, ...), of pictures or texts.
        micro_batch_size: the most rows of a piece, at least 1; None takes all at once.
        model: that encodes them; with a BatchNorm that is trained, a piece has at least two rows if there are as many.
    """
    if micro_batch_size is None:
        return (rows,)
    least = 2 if model is not None and trains_batch_norms(model) else 1
    # Equal pieces, not full ones and a rest: BatchNorm makes little sense of one or two rows.
    return rows.tensor_split(max(1, min(-(-len(rows) // micro_batch_size), len(rows) // least)))


@dataclass(frozen=True)
class _Pass:
    """What a first pass leaves: all embeddings as one leaf, and of each piece its rows and where its chances began."""

    embeddings: Tensor  # (rows, dim)
    pieces: tuple[Tensor, ...]
    states: list[RandomState]


def _first_pass(encode: Encode, pieces: tuple[Tensor, ...]) -> _Pass:
    """Embeddings without a graph; they ask for a gradient unless the tower is frozen."""
    states: list[RandomState] = []
    found: list[Tensor] = []
    trained = False
    for piece in pieces:
        states.append(_random_state(piece.device))
        # Without a graph nothing tells a frozen tower from others, so the first piece has one, and drops it at once.
        with torch.set_grad_enabled(not found):
            found.append(encode(piece))
        trained = trained or found[-1].requires_grad
        found[-1] = found[-1].detach()
    return _Pass(torch.cat(found).requires_grad_(trained), pieces, states)


def _second_pass(encode: Encode, first: _Pass) -> None:
    """Encodes each piece as the first pass did and sends its embeddings' gradient into the weights."""
    gradient = first.embeddings.grad
    if gradient is None:  # a frozen tower, or a loss that leaves it out
        return
    start = 0
    for piece, state in zip(first.pieces, first.states, strict=True):
        _set_random_state(state, piece.device)
        encode(piece).backward(gradient[start : start + len(piece)])  # type: ignore[no-untyped-call]
        start += len(piece)


@contextmanager
def _left_as_it_is(*devices: torch.device, model: nn.Module | None) -> Iterator[None]:
    """Puts random states and the model's buffers back to what they were."""
    states = [(device, _random_state(device)) for device in devices]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if model is not None else []
    try:
        yield
    finally:
        for device, state in states:
            _set_random_state(state, device)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
