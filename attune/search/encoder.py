"""A model that embeds documents for search: by their picture if there is one, else by their text; or a given embedding."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from attune.data.embeddings import read_embedding, to_bytes
from attune.data.images import decode
from attune.data.pixels import to_pixels
from attune.device import choose_device
from attune.errors import ModelError, RunNotFound, SearchError, SettingsError
from attune.evaluation.embeddings import shortened
from attune.models.clip import Clip, load_clip
from attune.runs.folder import RunFolder
from attune.schemas import SearchDocument

KEPT = ("both", "text", "image")
"""What an Encoder may keep of a model: both towers, or one."""

SHOWN = 10
"""The most bad documents that one message names."""


@dataclass(frozen=True)
class SearchEncoder:
    """A loaded model and what it can embed.

    Attributes:
        clip: the model; a tower that is not wanted has been dropped from it.
        towers: `both`, `text` or `image`.
        fingerprint: SHA-256 of the model and `dim`; equal ones give comparable embeddings.
        dim: the first so many numbers of an embedding are given.
    """

    clip: Clip
    towers: str
    fingerprint: str
    dim: int


def load_encoder(artifact: str, device: str = "auto", towers: str = "both", dim: int = 0) -> SearchEncoder:
    """Loads a model for search.

    Args:
        artifact: a run's name, a folder, or a model name as `attune.models.clip.load_clip` takes it; a run comes first.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        towers: `text` or `image` keeps one tower in memory; `both` keeps both.
        dim: length of the embeddings: one that the model was trained for (`matryoshka_dims`); 0 is the whole.

    Raises:
        SettingsError: if `towers`, `device` or `dim` cannot be, or the model has no tower of that name.
        SearchError: if the run has no artifact yet.
        ModelError: if there is no such run, folder or model.
    """
    if towers not in KEPT:
        raise SettingsError(f"towers = {towers!r}: choose one of {', '.join(KEPT)}")
    chosen = choose_device(device)
    # Loaded on the CPU, so that a tower that is dropped never takes up memory on the GPU.
    clip = _load(artifact)
    if towers not in ("both", *clip.towers):
        raise SettingsError(
            f"towers = {towers!r}: {clip.name!r} embeds {' and '.join(clip.towers)}s alone. Leave towers out"
        )
    dim = _check_dim(clip, dim)
    fingerprint = fingerprint_of(clip, dim)
    _drop_unused(clip.model, towers)
    clip.model.to(chosen).eval()
    return SearchEncoder(clip, towers, fingerprint, dim)


def fingerprint_of(clip: Clip, dim: int = 0) -> str:
    """SHA-256 of a model's weights, architecture and preprocessing, wherever it was loaded from.

    Args:
        clip: the model.
        dim: length of the embeddings, where it is not the whole: those of another length are not compared with them.
    """
    described = [clip.config, clip.preprocess, *([dim] if 0 < dim < clip.config["embed_dim"] else [])]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, weights in sorted(clip.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def embed(encoder: SearchEncoder, documents: Sequence[SearchDocument]) -> None:
    """Sets `embedding` (unit length) and `model` of every document, or of none.

    Raises:
        SearchError: naming every document that has nothing to embed, a picture that cannot be decoded, or needs a tower
            that is not loaded.
    """
    clip = encoder.clip
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes outside the interpreter lock
        prepared = list(pool.map(lambda document: _prepare(encoder, document), documents))
    problems = [
        f"{_label(number, document)}: {found}"
        for number, (document, found) in enumerate(zip(documents, prepared, strict=True), start=1)
        if isinstance(found, str)
    ]
    if problems:
        raise SearchError(_list_problems(problems, len(documents)))

    pictures = {row: found for row, found in enumerate(prepared) if isinstance(found, np.ndarray)}
    texts = {row: documents[row].text for row, found in enumerate(prepared) if found is None}
    vectors: dict[int, np.ndarray] = {}
    if pictures:
        found = clip.encode_images(np.stack(list(pictures.values())))
        vectors.update(zip(pictures, shortened(found, encoder.dim), strict=True))
    if texts:
        vectors.update(zip(texts, shortened(clip.encode_texts(list(texts.values())), encoder.dim), strict=True))
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        raise SearchError(f"The model {clip.name!r} gives embeddings that are not numbers. Choose another artifact")
    for row, document in enumerate(documents):
        document.embedding = vectors[row].tolist()
        document.model = encoder.fingerprint


def _check_dim(clip: Clip, dim: int) -> int:
    """The length of the embeddings, if the model can have it. Others would be worse ones without a word."""
    whole = clip.config["embed_dim"]
    if dim in (0, whole):
        return int(whole)
    if dim not in clip.matryoshka_dims:
        trained = ", ".join(map(str, clip.matryoshka_dims))
        raise SettingsError(
            f"dim = {dim!r}: the embeddings of {clip.name!r} have {whole} numbers, and "
            + (
                f"were trained to be shortened to {trained}. Choose one of these"
                if trained
                else "were not trained to be shortened. Leave dim out, or fine-tune with model_options.matryoshka_dims"
            )
        )
    return dim


def _prepare(encoder: SearchEncoder, document: SearchDocument) -> np.ndarray | str | None:
    """Pixels of a document with a picture; None if its text is to be embedded; else what is wrong with it.

    For an `mlp`, the embedding that it was given.
    """
    if encoder.clip.input_dim:
        return _given(encoder.clip, document)
    if document.image:
        if "image" not in encoder.clip.towers:
            return "it has a picture, but the model embeds texts alone. Send its text alone, or search with a CLIP"
        if encoder.towers == "text":
            return "it has a picture, but the Encoder was started with towers: text. Start it with both or image"
        try:
            return to_pixels(decode(document.image), encoder.clip.resize)
        except ValueError as error:
            return f"its picture cannot be used: {error}. Send an intact JPEG, PNG, WebP or GIF"
    if not document.text.strip():
        return "it has neither text nor image. Give it one of them"
    if "text" not in encoder.clip.towers:
        return "it has a text only, but the model embeds pictures alone. Send a picture, or search with a CLIP"
    if encoder.towers == "image":
        return "it has a text only, but the Encoder was started with towers: image. Start it with both or text"
    return None


def _given(clip: Clip, document: SearchDocument) -> np.ndarray | str:
    """The embedding that a document came with, float32 (input_dim,); or what is wrong with it."""
    if document.model:
        return "its embedding was made by an Encoder already. Send the one that the tuned model is to embed, with no model"
    wanted = f"an embedding of {clip.input_dim} numbers, of the model whose embeddings {clip.name!r} was trained on"
    if not document.embedding and not document.image:
        return f"it has no embedding, and nothing else can be embedded. Give it {wanted}"
    try:
        vector = read_embedding(to_bytes(document.embedding) if document.embedding else document.image)
    except ValueError as error:
        return f"its embedding cannot be used: {error}. Give it {wanted}"
    if len(vector) != clip.input_dim:
        return f"its embedding has {len(vector)} numbers. Give it {wanted}"
    return vector


def _label(number: int, document: SearchDocument) -> str:
    return f"document {number}, key {document.key!r}" if document.key else f"document {number}"


def _list_problems(problems: list[str], documents: int) -> str:
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    shown = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
    return f"{len(problems)} of {documents} documents cannot be embedded, so none of them was:{shown}{more}"


def _load(name: str) -> Clip:
    """A run's artifact if there is a run of that name, else the model or folder so named."""
    try:
        folder = RunFolder.open(name)
    except RunNotFound as no_run:
        try:
            return load_clip(name)
        except ModelError as no_model:
            raise ModelError(f"{no_model}. {no_run}") from no_model
    if not folder.artifact.is_dir():
        raise SearchError(
            f"The run {name!r} has no artifact: it is in state {folder.load().state}. Wait until it is FINISHED, or "
            "choose another"
        )
    return load_clip(str(folder.artifact))


def _drop_unused(model: torch.nn.Module, towers: str) -> None:
    """Frees the weights of the tower that is not wanted.

    open_clip's models hold the image tower as `visual`; all else but the logit scale and bias belongs to the text.
    """
    parts = [*model.named_children(), *model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]
    for name, _ in parts:
        tower = "image" if name == "visual" else "text"
        if towers not in ("both", tower) and not name.startswith("logit_"):
            setattr(model, name, None)
