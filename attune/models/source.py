"""Where a model comes from, by the name a user gives it.

starter                      the small CLIP in this package
path/to/folder               an Attune artifact, or any folder open_clip or timm opens (`local-dir:`)
ViT-B-32#openai              an open_clip model and its pre-trained weights, fetched from the hub and cached
ViT-B-32#path/to/weights.pt  an open_clip model and a local checkpoint
ViT-B-32#scratch             an open_clip model with random weights; `starter#scratch` and folders work too
timm/resnet50.a1_in1k        an image model of timm's; `#scratch` and `#path/to/checkpoint` as above
clip-base-en                 names of Jina Finetuner and others, see `attune.models.catalog.ALIASES`
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import open_clip

from attune.errors import ModelError
from attune.models.architecture import CONFIG, read_config
from attune.models.catalog import ALIASES
from attune.models.timm_folder import is_timm_folder, read_folder
from attune.models.timm_names import PREFIX, check_timm_name
from attune.service.roots import is_below, local_path

STARTER = Path(__file__).parent / "starter"


Library = Literal["open_clip", "timm"]

TOWERS: dict[Library, tuple[Literal["image", "text"], ...]] = {"open_clip": ("image", "text"), "timm": ("image",)}
"""What the models of each library embed."""


@dataclass(frozen=True)
class ModelSource:
    """A model name, taken apart.

    Attributes:
        architecture: the library's name of the model; empty if `folder` says it all.
        folder: folder with a configuration, weights and, of open_clip, a tokenizer.
        weights: open_clip tag or path of a checkpoint; empty for the folder's or the name's own weights or for scratch.
        scratch: whether to start from random weights.
        library: that it is of.
    """

    architecture: str = ""
    folder: Path | None = None
    weights: str = ""
    scratch: bool = False
    library: Library = "open_clip"

    @property
    def towers(self) -> tuple[Literal["image", "text"], ...]:
        """What it embeds."""
        return TOWERS[self.library]

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
    folder = STARTER if base == "starter" else local_path(base, roots)
    hint = "" if roots is None else _ROOTS
    is_timm = folder is not None and not (folder / CONFIG).is_file() and is_timm_folder(folder)
    if folder and (is_timm or (folder / CONFIG).is_file()):
        if folder != STARTER and roots is not None and not all(is_below(path, roots) for path in folder.iterdir()):
            raise ModelError(f"The folder {base!r} has links that lead out of it. Copy the files themselves")
        (read_folder if is_timm else read_config)(folder)
        if weights not in ("", "scratch"):
            raise ModelError(f"{name!r}: a folder holds its own weights. Write {base!r}, or {base + '#scratch'!r}")
        library: Library = "timm" if is_timm else "open_clip"
        return ModelSource(folder=folder.resolve(), scratch=weights == "scratch", library=library)
    if folder and folder.is_dir():
        raise ModelError(f"The folder {base!r} has no open_clip_config.json, so its architecture is not known. {_LOCAL}")
    if base.startswith(PREFIX):
        return _timm_model(base.removeprefix(PREFIX), weights, roots, hint)
    architecture = base.replace("/", "-")
    if architecture not in open_clip.list_models():
        near = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(f"There is no model named {base[:200]!r}.{meant} {_LOCAL}{hint}")
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


def _timm_model(name: str, weights: str, roots: Sequence[Path] | None, hint: str) -> ModelSource:
    scratch = weights == "scratch"
    file = local_path(weights, roots) if weights and not scratch else None
    check_timm_name(name, weights, file, hint)
    return ModelSource(name, weights=str(file or ""), scratch=scratch, library="timm")


_ROOTS = ". Of local paths only those below ATTUNE_MODEL_ROOTS count, which the service's operator sets"
_LOCAL = (
    "Known: `starter`; any open_clip model as `ViT-B-32#openai`; a folder with open_clip_config.json, or as timm writes it; "
    "`ViT-B-32#path/to/checkpoint`; `ViT-B-32#scratch`; image models of timm as `timm/resnet50.a1_in1k`"
)
