"""Where a model comes from, by the name a user gives it.

starter                      the small CLIP in this package
path/to/folder               an Attune artifact, or any folder that open_clip or timm (`local-dir:`) or, of text encoders,
                             sentence-transformers or transformers opens
ViT-B-32#openai              an open_clip model and its pre-trained weights, fetched from the hub and cached
ViT-B-32#path/to/weights.pt  an open_clip model and a local checkpoint
ViT-B-32#scratch             an open_clip model with random weights; `starter#scratch` and folders work too
timm/resnet50.a1_in1k        an image model of timm's; `#scratch` and `#path/to/checkpoint` as above
mlp                          a small network for given embeddings, which begins as what it is given; `mlp#scratch` as random
bert-base-cased              a text encoder of the catalogue, fetched from the Hugging Face hub and cached
owner/name                   any other text encoder of the hub
clip-base-en                 names of Jina Finetuner and others, see `attune.models.catalog.ALIASES`
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip

from attune.errors import ModelError
from attune.kinds import Tower
from attune.models.architecture import CONFIG, read_config
from attune.models.catalog import ALIASES, TIMM, hub_models
from attune.models.library import EMBEDS, Library
from attune.models.mlp_folder import is_mlp_folder, read_mlp_folder
from attune.models.sentence_folder import is_sentence_folder, read_sentence_folder
from attune.models.suggestions import model_names, nearest, question
from attune.models.timm_folder import is_timm_folder, read_folder
from attune.models.timm_names import check_timm_name
from attune.models.untrusted import check_files
from attune.service.roots import is_below, local_path

STARTER = Path(__file__).parent / "starter"

_PATH = re.compile(r"^[/.~]|\\|/.*/")
"""What only a path looks like."""

_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelSource:
    """A model name, taken apart.

    Attributes:
        architecture: the library's name of the model; empty if `folder` says it all.
        folder: folder with a configuration, weights and, of open_clip, a tokenizer.
        weights: open_clip tag or path of a checkpoint; empty for the folder's or the name's own weights or for scratch.
        scratch: whether to start from random weights.
        library: that it is of.
        hub: its repository on the Hugging Face hub, which it is fetched from as a folder; empty for all others.
    """

    architecture: str = ""
    folder: Path | None = None
    weights: str = ""
    scratch: bool = False
    library: Library = "open_clip"
    hub: str = ""

    @property
    def towers(self) -> tuple[Tower, ...]:
        """What it embeds."""
        return EMBEDS[self.library]

    @property
    def open_clip_name(self) -> str:
        """What open_clip's factory functions take as the model name."""
        return f"local-dir:{self.folder}" if self.folder else self.architecture


def find_model(name: str, roots: Sequence[Path] | None = None) -> ModelSource:
    """Takes a model name apart and checks that such a model and such weights exist, without loading anything.

    Args:
        name: as the user gave it.
        roots: folders that a local model must lie in, see `attune.service.roots`; None is anywhere.

    Raises:
        ModelError: with the nearest known names, or the tags the model has; or if a folder's configuration is not safe.
    """
    base, _, weights = name.partition("#")
    base, _, tag = ALIASES.get(base, base).partition("#")
    weights = weights or tag
    if base == "mlp":
        if weights not in ("", "scratch"):
            raise ModelError(f"{name!r}: an `mlp` comes without weights. Write 'mlp', 'mlp#scratch', or the folder of one")
        return ModelSource(scratch=weights == "scratch", library="mlp")
    folder = STARTER if base == "starter" else local_path(base, roots)
    hint = "" if roots is None else _ROOTS
    if folder and not folder.is_dir():
        raise ModelError(f"{base!r} is no folder. A checkpoint is named with its architecture, `ViT-B-32#{base}`")
    if folder and folder != STARTER:
        check_files(folder)
    library = _library_of_folder(folder) if folder else None
    if folder and library:
        if folder != STARTER and roots is not None and not all(is_below(path, roots) for path in folder.rglob("*")):
            raise ModelError(f"The folder {base!r} has links that lead out of it. Copy the files themselves")
        _READ[library](folder)
        if weights not in ("", "scratch"):
            raise ModelError(f"{name!r}: a folder holds its own weights. Write {base!r}, or {base + '#scratch'!r}")
        return ModelSource(folder=folder.resolve(), scratch=weights == "scratch", library=library)
    if folder:
        raise ModelError(
            f"The folder {base!r} has no open_clip_config.json, mlp_config.json, modules.json or config.json, "
            f"so its architecture is not known. {_LOCAL}"
        )
    if base.startswith(TIMM):
        return _timm_model(base.removeprefix(TIMM), weights, roots, hint)
    architecture = base.replace("/", "-")
    if architecture not in open_clip.list_models():
        repository = hub_models().get(base) or (base if roots is None and _ON_HUB.fullmatch(base) else "")
        if repository and weights in ("", "scratch"):
            return ModelSource(scratch=weights == "scratch", library="sentence_transformers", hub=repository)
        unknown = f"There is no model named {base[:200]!r}"
        if _PATH.search(base):
            raise ModelError(f"{unknown}: no such folder is on the service's machine. Copy it there{hint}")
        raise ModelError(f"{unknown}.{question(nearest(base, model_names()))} {_LOCAL}{hint}")
    if weights == "scratch":
        return ModelSource(architecture, scratch=True)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        raise ModelError(f"{name!r} does not say which weights. Write {base}#TAG with one of: {', '.join(tags)}, scratch")
    file = None if weights in tags else local_path(weights, roots)
    if weights not in tags and not (file and file.is_file()):
        raise ModelError(
            f"{base!r} has no weights {weights[:200]!r}, and no such file exists. Tags: {', '.join(tags)}, scratch{hint}"
        )
    return ModelSource(architecture, weights=str(file or weights))


def _library_of_folder(folder: Path) -> Library | None:
    """The library that wrote a folder; None if none did."""
    if (folder / CONFIG).is_file():
        return "open_clip"
    if is_mlp_folder(folder):
        return "mlp"
    if is_timm_folder(folder):
        return "timm"
    return "sentence_transformers" if is_sentence_folder(folder) else None


_READ: dict[Library, Callable[[Path], object]] = {
    "mlp": read_mlp_folder,
    "open_clip": read_config,
    "sentence_transformers": read_sentence_folder,
    "timm": read_folder,
}


def _timm_model(name: str, weights: str, roots: Sequence[Path] | None, hint: str) -> ModelSource:
    scratch = weights == "scratch"
    file = local_path(weights, roots) if weights and not scratch else None
    check_timm_name(name, weights, file, hint)
    return ModelSource(name, weights=str(file or ""), scratch=scratch, library="timm")


_ROOTS = ". Of local paths only those below ATTUNE_MODEL_ROOTS count, which the service's operator sets"
_LOCAL = (
    "Known: `starter`; any open_clip model as `ViT-B-32#openai`; image models of timm as `timm/resnet50.a1_in1k`; text "
    "encoders of the Hugging Face hub as `owner/name`; `mlp` for given embeddings; a "
    "folder of open_clip, timm, sentence-transformers or transformers; `ViT-B-32#path/to/checkpoint`; `ViT-B-32#scratch`"
)
