"""Zero-shot classification: the class whose name, put into prompts, lies nearest to the picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

import numpy as np

from attune.errors import DataError
from attune.models.clip import Clip
from attune.service.roots import local_path

MAX_BYTES = 10**6
MOST_PROMPTS = 1000
_FOLDER = Path(__file__).parent / "templates"


def templates(name: str = "openai", roots: Sequence[Path] | None = None) -> list[str]:
    """Prompts with `{c}` for the name of the class, such as ``"a photo of a {c}."``.

    Args:
        name: ``simple`` (one prompt), ``openai`` (seven; good where pictures are of many kinds), or the path of a text file
            (UTF-8) with a prompt a line, on the machine where this runs: the service's. Empty lines and those that start
            with ``#`` are passed over.
        roots: folders that such a file must lie in, see `attune.service.roots`; None is anywhere.

    Raises:
        DataError: if there is no such set or file, it has none or more than `MOST_PROMPTS`, or one of them has anything
            but `{c}` in braces.
    """
    shipped = {path.stem: path for path in sorted(_FOLDER.glob("*.txt"))}
    path = shipped.get(name) or local_path(name, roots)
    try:
        if path is None or not path.is_file():
            raise OSError("there is no such file" if roots is None else "there is no such file below ATTUNE_MODEL_ROOTS")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(f"the file has more than {MAX_BYTES:,} bytes")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(shipped)
        raise DataError(
            f"prompt_templates = {name!r}: {error}. Give {known}, or a text file on the service's machine with a "
            "prompt a line"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    found = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    wrong = [number for number, line in found if not _only_c(line)]
    if wrong or not found:
        # The lines themselves are not shown: whoever may start a run could read any file of the service.
        what = (
            f"lines that are no prompts: {len(wrong)}, the first is line {wrong[0]}"
            if wrong
            else "there are no prompts in it"
        )
        raise DataError(f"{path}: {what}. Write a prompt a line with {{c}} where the name of the class goes")
    if len(found) > MOST_PROMPTS:
        raise DataError(
            f"{path}: it has {len(found):,} prompts, more than {MOST_PROMPTS:,}. Each is embedded for each class"
        )
    return [line for _, line in found]


def classifier(clip: Clip, class_names: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """A unit-length vector for each class: the mean of its prompts' embeddings, float32 (classes, dim).

    The method is that of Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
    section 3.1.4: embeddings are of unit length before they are averaged, and so is their mean.

    Args:
        clip: the model.
        class_names: as people say them; the underscores of labels such as ``fire_truck`` become spaces.
        prompts: see `templates`.

    Raises:
        DataError: if there are no classes, or two have one name: no model can tell these apart.
    """
    names = [name.replace("_", " ") for name in class_names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise DataError(f"Two classes are called {twice[0]!r}: merge or rename them" if twice else "There are no classes")
    texts = [prompt.format(c=name) for name in names for prompt in prompts]
    mean = clip.encode_texts(texts).reshape(len(names), len(prompts), -1).mean(axis=1)
    vectors: np.ndarray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return vectors


def zero_shot(class_vectors: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Cosine of each picture with each class, float32 (images, classes), -1 to 1.

    They are computed in float64 and rounded once, so classes with equal vectors tie, and a model that embeds everything
    alike scores nothing.

    Args:
        class_vectors: see `classifier`.
        images: unit-length embeddings, float32 (images, dim).
    """
    return (images.astype(np.float64) @ class_vectors.astype(np.float64).T).astype(np.float32)


def _only_c(prompt: str) -> bool:
    try:
        fields = [field for _, *field in Formatter().parse(prompt) if field[0] is not None]
    except ValueError:  # braces that do not pair
        return False
    return bool(fields) and all(field == ["c", "", None] for field in fields)
