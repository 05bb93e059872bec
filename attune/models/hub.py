"""Models of the Hugging Face hub, as folders: fetched once, and from then on read from the cache of huggingface_hub."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from attune.errors import ModelError

SMALL = ["*.json", "*.txt", "*.model"]
"""Configurations and tokenizers."""

ELSEWHERE = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]
"""Folders with the same weights for other programs."""


def hub_folder(repository: str, weights: bool = True) -> Path:
    """The folder of a model of the hub; what of it is not on this machine yet is fetched.

    Args:
        repository: as `sentence-transformers/all-MiniLM-L6-v2`.
        weights: whether they are needed, or only the configuration.

    Raises:
        ModelError: if it is not here and cannot be fetched.
    """
    cached = cached_folder(repository)
    if cached is not None:
        return cached
    try:
        folder = Path(snapshot_download(repository, allow_patterns=SMALL, ignore_patterns=ELSEWHERE))
        if weights:
            # The encoder's last: where they are, all else is there too.
            for file in sorted(weight_files(HfApi().list_repo_files(repository)), key=_is_encoder):
                snapshot_download(repository, allow_patterns=file)
    except Exception as error:  # of many kinds: no such repository, no network, a proxy, a full disk
        raise ModelError(
            f"The model {repository!r} is not on this machine, and the Hugging Face hub did not give it: "
            f"{str(error)[:300]}. Check the name and the network, or copy its files here and give the folder"
        ) from error
    return folder


def cached_folder(repository: str) -> Path | None:
    """The folder of a model that was fetched before; None if it was not, or not wholly."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):  # or no name that the hub could have
        return None
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return folder if any(map(_is_encoder, weight_files(there))) else None


def weight_files(files: Sequence[str]) -> list[str]:
    """The files of weights among those of a repository: in each folder safetensors, else what torch wrote."""
    paths = [path for path in map(PurePosixPath, files) if path.parent.name not in ("onnx", "openvino")]
    safe = [path for path in paths if path.match("model*.safetensors")]
    others = [path for path in paths if path.match("pytorch_model*.bin") and path.parent not in {one.parent for one in safe}]
    return [str(path) for path in (*safe, *others)]


def _is_encoder(file: str) -> bool:
    """Whether a file of weights is the encoder's, and not that of a dense layer after it."""
    return str(PurePosixPath(file).parent) in (".", "0_Transformer")
