"""The artifact: a folder that explains itself and that its own library opens: open_clip, timm, sentence-transformers.

open_clip_config.json          architecture and preprocessing; lengths of shorter embeddings it was trained for, if any
open_clip_model.safetensors    weights
text_tower_config.json         the text tower, if it is one of Hugging Face
tokenizer.json ...             the tokenizer, if it is not CLIP's own
metrics.json                   before and after
settings.json                  the run's settings, data fingerprints and environment
README.md                      model card
manifest.json                  every file's size and SHA-256

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:artifact")
tokenizer = open_clip.get_tokenizer("local-dir:artifact")

Of timm's models the first two are `config.json` and `model.safetensors`, and there is no tokenizer:

model = timm.create_model("local-dir:artifact", pretrained=True)

A text encoder's has in place of the first two what `attune.models.sentence_folder` says: SentenceTransformer("artifact")
"""

import json
import shutil
from pathlib import Path

import numpy as np

from attune.config import check_settings
from attune.data.parts import load_parts
from attune.errors import ExportError
from attune.evaluation.measure import pixels_of
from attune.files import sha256, write_text
from attune.models.clip import Clip, load_folder
from attune.models.weights import DTYPES
from attune.report.card import model_card
from attune.runs.folder import RunFolder, read_json
from attune.runs.models import load_named
from attune.schemas import Artifact

PROBES = 64
MAX_DIFFERENCE = 1e-4
"""Embeddings have unit length; a reloaded model may differ by rounding, not by more."""


def export(folder: RunFolder) -> Artifact:
    """Writes the artifact, loads it again as a user would, and compares its embeddings with the trained model's.

    The folder appears under its name only when the comparison has passed.

    Raises:
        ExportError: if the reloaded model embeds the probes differently; the files are kept for inspection.
    """
    run = folder.load()
    settings = check_settings(run.settings)
    # On the CPU: a few embeddings need no GPU.
    clip = load_named(settings.model, seed=settings.seed, options=settings.model_options)
    clip.load_weights(folder.chosen_weights)
    if run.training.chosen != "start":  # that has learnt no other lengths than it had
        clip.matryoshka_dims = settings.model_options.matryoshka_dims

    draft = folder.path / ".artifact"
    shutil.rmtree(draft, ignore_errors=True)
    clip.save_folder(draft, DTYPES[settings.artifact_precision])
    shutil.copy(folder.report / "metrics.json", draft / "metrics.json")
    origin = {
        "run": run.name,
        "settings": run.settings,
        "train_fingerprint": run.train_fingerprint,
        "eval_fingerprint": run.eval_fingerprint,
        "val_fingerprint": run.val_fingerprint,
        "environment": read_json(folder.path / "environment.json"),
    }
    write_text(draft / "settings.json", json.dumps(origin, indent=2) + "\n")
    write_text(draft / "README.md", model_card(run, clip.config))

    test = load_parts(settings, run.train_fingerprint, run.eval_fingerprint, val_fingerprint=run.val_fingerprint).test
    test = test.take(range(min(PROBES, len(test))))
    cache = pixels_of(clip, test)
    pixels = cache.pixels[cache.rows(test.images)] if cache is not None else None
    # The key of a match is as good a text as any.
    captions = [captions[0] for captions in test.captions if captions]
    texts = [*test.queries, *captions] if "text" in clip.towers else []
    difference = largest_difference(clip, load_folder(draft), pixels, texts)
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"The exported model embeds {len(test)} held-out examples differently from the trained one: by up to "
            f"{difference:.3g}, allowed {MAX_DIFFERENCE:g}. The files are in {draft}; please report this"
        )
    artifact = _manifest(draft, difference)
    shutil.rmtree(folder.artifact, ignore_errors=True)
    draft.rename(folder.artifact)
    folder.log(f"artifact reloaded and compared: largest difference {difference:.2g}")
    return artifact


def largest_difference(one: Clip, other: Clip, pixels: np.ndarray | None, texts: list[str]) -> float:
    """Largest absolute difference of any component of any embedding; NaN counts as a difference.

    Args:
        one: a model.
        other: a model of the same architecture.
        pixels: uint8 (images, 3, height, width); None if there are no pictures to embed.
        texts: texts to embed; none if there is no text tower.
    """
    found = []
    if texts:
        found.append(np.abs(one.encode_texts(texts) - other.encode_texts(texts)))
    if pixels is not None:
        found.append(np.abs(one.encode_images(pixels) - other.encode_images(pixels)))
    return float(np.max(np.concatenate(found)))


def _manifest(folder: Path, difference: float) -> Artifact:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    artifact = Artifact(
        files={name: path.stat().st_size for name, path in files.items()},
        checksums={name: sha256(path) for name, path in files.items()},
        max_difference=difference,
    )
    write_text(folder / "manifest.json", artifact.model_dump_json(indent=2, exclude={"id"}) + "\n")
    artifact.files["manifest.json"] = (folder / "manifest.json").stat().st_size
    artifact.checksums["manifest.json"] = sha256(folder / "manifest.json")
    return artifact
